use super::*;

fn params(pairs: &[(&str, &str)]) -> Params {
    pairs.iter().copied().collect()
}

fn text(params: &Params) -> String {
    params
        .iter()
        .map(|(n, v)| format!("{}={} ", n.escape_ascii(), v.escape_ascii()))
        .collect::<String>()
        .trim_end()
        .to_owned()
}

#[test]
fn the_last_of_several_values_counts() {
    let params = params(&[("A", "1"), ("B", "2"), ("A", "3")]);
    assert_eq!(params.get(b"A"), Some(&b"3"[..]));
    assert_eq!(params.get(b"B"), Some(&b"2"[..]));
    assert_eq!(params.get(b"C"), None);
}

#[test]
fn pairs_come_in_the_order_in_which_they_were_sent() {
    let params = params(&[("A", "1"), ("B", "2"), ("A", "3")]);
    assert_eq!(text(&params), "A=1 B=2 A=3");
    assert_eq!(params.len(), 3);
}

#[test]
fn a_name_that_begins_like_another_is_another() {
    let params = params(&[("HTTP", "1"), ("HTTP_HOST", "2")]);
    assert_eq!(params.get(b"HTTP"), Some(&b"1"[..]));
    assert_eq!(params.get(b"HTTP_"), None);
}

#[test]
fn setting_replaces_every_value_and_keeps_the_place() {
    let mut some = params(&[("A", "1"), ("B", "2"), ("A", "3"), ("C", "4"), ("A", "5")]);
    some.set(b"A", b"longer than before");
    assert_eq!(text(&some), "A=longer than before B=2 C=4");
    some.set(b"B", b"");
    assert_eq!(text(&some), "A=longer than before B= C=4");
    assert_eq!(some.len(), 3);
}

#[test]
fn setting_a_new_name_appends_it() {
    let mut some = Params::default();
    assert!(some.is_empty());
    some.set(b"A", b"1");
    some.set(b"B", b"2");
    assert_eq!(text(&some), "A=1 B=2");
    assert!(!some.is_empty());
}

#[test]
fn removing_takes_out_every_value() {
    let mut some = params(&[("A", "1"), ("B", "2"), ("A", "3")]);
    some.remove(b"A");
    assert_eq!(text(&some), "B=2");
    assert_eq!(some.len(), 1);
    some.remove(b"not there");
    some.remove(b"B");
    assert!(some.is_empty());
    assert_eq!(some, Params::default());
}

#[test]
fn thousands_of_duplicates_are_no_work() {
    let mut some: Params = (0..200_000).map(|n| ("A", n.to_string())).collect();
    some.set(b"A", b"1");
    assert_eq!(text(&some), "A=1");
    let mut some: Params = (0..200_000).map(|n| ("A", n.to_string())).collect();
    some.remove(b"A");
    assert!(some.is_empty());
}

#[test]
fn names_and_values_can_be_empty() {
    let mut some = params(&[("", ""), ("A", "")]);
    assert_eq!(some.get(b""), Some(&b""[..]));
    assert_eq!(some.get(b"A"), Some(&b""[..]));
    some.remove(b"");
    assert_eq!(text(&some), "A=");
}

#[test]
fn a_nul_follows_each_name_and_value_and_those_inside_are_kept() {
    let params = params(&[("A\0B", "1\0"), ("C", "")]);
    let with_nul: Vec<_> = params.iter_with_nul().collect();
    assert_eq!(
        with_nul,
        [(&b"A\0B\0"[..], &b"1\0\0"[..]), (&b"C\0"[..], &b"\0"[..])]
    );
    assert_eq!(params.get(b"A\0B"), Some(&b"1\0"[..]));
}

#[test]
fn values_do_not_end_up_in_logs() {
    let params = params(&[("PHP_AUTH_PW", "secret")]);
    assert_eq!(format!("{params:?}"), r#"Params {"PHP_AUTH_PW"}"#);
}

#[test]
fn a_usual_request_needs_one_allocation() {
    let pairs: Vec<_> = (0..30)
        .map(|n| (format!("HTTP_X_{n}"), "fifteen letters"))
        .collect();
    let sent = super::super::client::encode_pairs(pairs);
    let mut collector = Collector::default();
    let mut room = 4096;
    collector.feed(&sent, &mut room).expect("room");
    // What was reserved at first is what there is now.
    assert_eq!(collector.capacity(), 2 * sent.len());
}
