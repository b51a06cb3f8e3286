//! What a request brings: variables, bodies, files.

use std::collections::BTreeSet;
use std::fs;
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::json;

use super::{SERVER, is_since, run};
use crate::support::record::{PARAMS, STDIN, record};
use crate::support::request::{Part, multipart};
use crate::support::{Request, Setup};

/// A script that answers with this expression as JSON.
fn value_of(expression: &str) -> Request {
    run(&format!("echo json_encode({expression});"))
}

#[test]
fn server_has_every_parameter_and_what_php_adds() {
    let request = value_of("$_SERVER")
        .query("a=1")
        .param("HTTP_X_SOMETHING", "some: thing")
        .param("REMOTE_USER", "anna")
        .param("HTTPS", "on");
    let server = request.send().json();
    for (name, value) in &request.params {
        let (name, value) = (
            String::from_utf8_lossy(name),
            String::from_utf8_lossy(value),
        );
        assert_eq!(server[&*name], &*value, "$_SERVER['{name}']");
    }
    assert_eq!(server["PHP_SELF"], request.text("SCRIPT_NAME"));
    assert_eq!(server["FCGI_ROLE"], "RESPONDER");
    let known: BTreeSet<String> = request
        .params
        .iter()
        .map(|(name, _)| String::from_utf8_lossy(name).into_owned())
        .chain(
            [
                "PHP_SELF",
                "FCGI_ROLE",
                "REQUEST_TIME",
                "REQUEST_TIME_FLOAT",
                "USER",
                "HOME",
                "argv",
                "argc",
            ]
            .map(str::to_owned),
        )
        .collect();
    let unexpected: Vec<&String> = server
        .as_object()
        .unwrap()
        .keys()
        .filter(|name| !known.contains(*name))
        .collect();
    assert!(unexpected.is_empty(), "$_SERVER has more: {unexpected:?}");
}

#[test]
fn request_time_is_now() {
    let now = || {
        SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap()
            .as_secs_f64()
    };
    let before = now();
    let times = value_of("[$_SERVER['REQUEST_TIME'], $_SERVER['REQUEST_TIME_FLOAT'], time()]")
        .send()
        .json();
    let after = now();
    let float = times[1].as_f64().unwrap();
    assert!(
        before - 0.1 <= float && float <= after + 0.1,
        "{before} <= {float} <= {after}"
    );
    assert_eq!(times[0].as_i64().unwrap(), float as i64, "{times}");
}

#[test]
fn argv_is_the_query_string_if_wanted() {
    let server = Setup::new()
        .pool("php_admin_flag[register_argc_argv] = on")
        .start();
    server
        .run("echo json_encode([$_SERVER['argv'], $_SERVER['argc']]);")
        .query("one+two+three")
        .send()
        .expect_text(r#"[["one","two","three"],3]"#);
}

#[test]
fn get_takes_the_query_string_apart() {
    let get = value_of("$_GET")
        .query("a=1&b[]=x&b[]=y&c[k][n]=v&d.e=dot&f=%C3%A4+%26&g&a=2")
        .send()
        .json();
    assert_eq!(
        get,
        json!({"a": "2", "b": ["x", "y"], "c": {"k": {"n": "v"}}, "d_e": "dot", "f": "ä &", "g": ""})
    );
}

#[test]
fn cookies_are_decoded() {
    let cookies = value_of("$_COOKIE")
        .param("HTTP_COOKIE", "a=1; b=%20x; c[k]=v; a=2")
        .send()
        .json();
    assert_eq!(cookies, json!({"a": "1", "b": " x", "c": {"k": "v"}}));
}

#[test]
fn a_form_becomes_post_and_request_has_both() {
    let both = value_of("[$_GET, $_POST, $_REQUEST, $_FILES]")
        .query("a=get&q=1")
        .form("a=post&list[]=1&list[]=2&text=%E2%82%AC")
        .send()
        .json();
    assert_eq!(
        both,
        json!([
            {"a": "get", "q": "1"},
            {"a": "post", "list": ["1", "2"], "text": "€"},
            {"a": "post", "q": "1", "list": ["1", "2"], "text": "€"},
            [],
        ])
    );
}

#[test]
fn filter_input_sees_the_same() {
    value_of(
        "[filter_input(INPUT_GET, 'a'), filter_input(INPUT_POST, 'b'), filter_input(INPUT_COOKIE, 'c'),
          filter_input(INPUT_SERVER, 'REQUEST_METHOD')]",
    )
    .query("a=1")
    .param("HTTP_COOKIE", "c=3")
    .form("b=2")
    .send()
    .expect_text(r#"["1","2","3","POST"]"#);
}

#[test]
fn env_variables_of_the_pool_reach_env_server_and_getenv() {
    let server = Setup::new()
        .env("OUTER", "from outside")
        .env("SECRET", "of the server")
        .pool(
            "env[GREETING] = hello\n\
             env[COPIED] = $OUTER\n\
             php_admin_value[variables_order] = EGPCS",
        )
        .start();
    server
        .run(
            "echo json_encode([$_ENV['GREETING'], $_SERVER['GREETING'], getenv('GREETING'), getenv()['GREETING'],
                               $_ENV['COPIED'], getenv('COPIED'), getenv('SECRET'), isset($_ENV['SECRET'])]);",
        )
        .send()
        .expect_text(r#"["hello","hello","hello","hello","from outside","from outside",false,false]"#);
}

#[test]
fn without_clear_env_scripts_see_the_environment() {
    let server = Setup::new()
        .env("OUTER", "from outside")
        .pool("clear_env = no")
        .start();
    server
        .run("echo getenv('OUTER');")
        .send()
        .expect_text("from outside");
}

#[test]
fn getenv_knows_the_parameters() {
    value_of(
        "[getenv('REQUEST_METHOD'), getenv('X_PARAM'), getenv()['X_PARAM'], getenv('NO_SUCH')]",
    )
    .param("X_PARAM", "value")
    .send()
    .expect_text(r#"["GET","value","value",false]"#);
}

#[test]
fn http_proxy_never_arrives() {
    value_of(
        "[$_SERVER['HTTP_PROXY'] ?? null, getenv('HTTP_PROXY'), getenv()['HTTP_PROXY'] ?? null]",
    )
    .param("HTTP_PROXY", "http://evil.example.org/")
    .send()
    .expect_text("[null,false,null]");
}

// --- Bodies ------------------------------------------------------------------------------------

#[test]
fn the_raw_body_may_be_read_more_than_once() {
    let code = "echo json_encode([file_get_contents('php://input'), stream_get_contents(fopen('php://input', 'r'), -1, 2), $_POST]);";
    for method in ["POST", "PUT", "PATCH", "DELETE"] {
        run(code)
            .post("application/json", r#"{"a":1}"#)
            .method(method)
            .send()
            .expect_text(r#"["{\"a\":1}","a\":1}",[]]"#);
    }
}

#[test]
fn the_raw_body_of_a_form_is_there_too() {
    value_of("[file_get_contents('php://input'), $_POST]")
        .form("a=1")
        .send()
        .expect_text(r#"["a=1",{"a":"1"}]"#);
}

#[test]
fn a_body_may_be_read_in_pieces() {
    let body: Vec<u8> = (0..500_000_u32).map(|at| (at * 7 % 251) as u8).collect();
    let response =
        run("$in = fopen('php://input', 'rb'); while (!feof($in)) { echo fread($in, 1000); }")
            .post("application/octet-stream", body.clone())
            .send();
    assert!(response.body == body, "{response:?}");
}

#[test]
fn a_body_needs_no_content_type() {
    run("echo file_get_contents('php://input');")
        .post("", "a body")
        .send()
        .expect_text("a body");
}

#[test]
fn a_body_that_is_not_read_does_no_harm() {
    let request = run("echo 'done';")
        .post("application/octet-stream", vec![b'x'; 300_000])
        .keep();
    let mut client = request.connect();
    for _ in 0..3 {
        client.request(&request).expect_text("done");
    }
}

#[test]
fn without_content_length_the_body_ends_with_stdin() {
    for length in [None, Some(""), Some("-1")] {
        let mut request = run("echo file_get_contents('php://input');")
            .post("text/plain", "a body of unknown length")
            .keep();
        request = match length {
            None => request.without("CONTENT_LENGTH"),
            Some(length) => request.param("CONTENT_LENGTH", length),
        };
        let mut client = request.connect();
        client
            .request(&request)
            .expect_text("a body of unknown length");
        client
            .request(&request)
            .expect_text("a body of unknown length");
    }
    let form = value_of("$_POST")
        .form("a=1&b=2")
        .param("CONTENT_LENGTH", "-1");
    form.send().expect_text(r#"{"a":"1","b":"2"}"#);
}

#[test]
fn a_content_length_that_is_no_number_is_a_bad_request() {
    for length in [
        "abc",
        "12abc",
        "1 2",
        "+5",
        "-2",
        "0x10",
        "5.0",
        "99999999999999999999",
        "9223372036854775808",
    ] {
        let response = run("echo 'ran';")
            .post("text/plain", "a body")
            .param("CONTENT_LENGTH", length)
            .send();
        assert_eq!(
            response.status, 400,
            "CONTENT_LENGTH {length:?}: {response:?}"
        );
        assert_ne!(response.text(), "ran");
    }
}

#[test]
fn a_body_beyond_post_max_size_is_dropped_and_the_script_runs() {
    let server = Setup::new().pool("php_value[post_max_size] = 1K").start();
    let response = server
        .run("echo json_encode([$_POST, $_SERVER['CONTENT_LENGTH']]);")
        .form(&format!("a={}", "x".repeat(5000)))
        .send();
    response.expect_text(r#"[[],"5002"]"#);
    assert!(
        response.stderr.contains("exceeds the limit of 1024 bytes"),
        "{response:?}"
    );
    server.expect_alive();
}

// --- Files -------------------------------------------------------------------------------------

#[test]
fn an_upload_becomes_files_and_post() {
    let content: Vec<u8> = (0..200_000_u32).map(|at| (at % 256) as u8).collect();
    let answer = run(
        "$f = $_FILES['f'];
         echo json_encode([$f['name'], $f['type'], $f['size'], $f['error'], md5_file($f['tmp_name']),
             is_uploaded_file($f['tmp_name']), dirname($f['tmp_name']), $_POST, file_get_contents('php://input')]);",
    )
    .multipart(&[
        Part::field("title", "A title"),
        Part::file("f", "näme.bin", "application/x-thing", &content),
        Part::field("list[]", "last"),
    ])
    .send()
    .json();
    let digest = value_of("md5(file_get_contents('php://input'))")
        .post("application/octet-stream", content.clone())
        .send()
        .json();
    assert_eq!(
        answer,
        json!(["näme.bin", "application/x-thing", 200_000, 0, digest, true, SERVER.state().to_str().unwrap(),
            {"title": "A title", "list": ["last"]}, ""])
    );
}

#[test]
fn several_files_may_share_a_name() {
    value_of("array_map(null, $_FILES['f']['name'], $_FILES['f']['size'])")
        .multipart(&[
            Part::file("f[]", "one", "text/plain", b"1"),
            Part::file("f[]", "two", "text/plain", b"22"),
        ])
        .send()
        .expect_text(r#"[["one",1],["two",2]]"#);
}

#[test]
fn what_is_wrong_with_an_upload_is_told() {
    let server = Setup::new()
        .pool("php_value[upload_max_filesize] = 1K")
        .start();
    server
        .run("echo json_encode(array_column($_FILES, 'error'));")
        .multipart(&[
            Part::file("right", "a", "text/plain", b"short"),
            Part::file("long", "b", "text/plain", &[b'x'; 2000]),
            Part::file("none", "", "application/octet-stream", b""),
        ])
        .send()
        .expect_text("[0,1,4]");
}

#[test]
fn at_most_max_file_uploads_arrive() {
    let names: Vec<String> = (0..8).map(|number| format!("f{number}")).collect();
    let parts: Vec<Part<'_>> = names
        .iter()
        .map(|name| Part::file(name, "a", "text/plain", b"x"))
        .collect();
    value_of("count($_FILES)")
        .multipart(&parts)
        .send()
        .expect_text("5");
}

#[test]
fn a_body_that_ends_early_is_a_partial_upload() {
    let mut body = multipart(
        &[Part::file("f", "a", "text/plain", &[b'x'; 1000])],
        "the-boundary",
    );
    let length = body.len().to_string();
    body.truncate(500);
    value_of("$_FILES['f']['error']")
        .post("multipart/form-data; boundary=the-boundary", body)
        .param("CONTENT_LENGTH", length)
        .send()
        .expect_text("3");
}

#[test]
fn an_upload_can_be_moved() {
    let target = SERVER.state().join("moved");
    run(&format!(
        "var_dump(move_uploaded_file($_FILES['f']['tmp_name'], '{0}'), file_get_contents('{0}'));",
        target.display()
    ))
    .multipart(&[Part::file("f", "a", "text/plain", b"content")])
    .send()
    .expect_text("bool(true)\nstring(7) \"content\"\n");
    assert_eq!(fs::read_to_string(&target).unwrap(), "content");
}

#[test]
fn temporary_files_are_gone_before_the_answer_is_complete() {
    let server = Setup::new().children(2).start();
    let request = server
        .run("echo $_FILES['f']['tmp_name'], file_exists($_FILES['f']['tmp_name']) ? ' is there' : ' is not there';")
        .multipart(&[Part::file("f", "a", "text/plain", &[b'x'; 100_000])])
        .keep();
    let mut client = request.connect();
    for _ in 0..50 {
        let text = client.request(&request).text();
        assert!(text.ends_with(" is there"), "{text}");
        let left: Vec<_> = fs::read_dir(server.state())
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        assert!(
            left.is_empty(),
            "after the answer {text:?} there is {left:?}"
        );
    }
}

#[test]
fn put_may_bring_a_form_where_php_can_parse_it() {
    if !is_since(80400) {
        return;
    }
    let parts = [
        Part::field("a", "1"),
        Part::file("f", "name", "text/plain", b"content"),
    ];
    run("[$post, $files] = request_parse_body(); echo json_encode([$post, $files['f']['size']]);")
        .multipart(&parts)
        .method("PUT")
        .send()
        .expect_text(r#"[{"a":"1"},7]"#);
}

// --- Headers -----------------------------------------------------------------------------------

#[test]
fn basic_authorization_is_taken_apart() {
    value_of(
        "[$_SERVER['PHP_AUTH_USER'], $_SERVER['PHP_AUTH_PW'], $_SERVER['HTTP_AUTHORIZATION']]",
    )
    .param("HTTP_AUTHORIZATION", "Basic YW5uYTpzZTpjcmV0")
    .send()
    .expect_text(r#"["anna","se:cret","Basic YW5uYTpzZTpjcmV0"]"#);
}

#[test]
fn digest_authorization_is_passed_on() {
    value_of("$_SERVER['PHP_AUTH_DIGEST']")
        .param("HTTP_AUTHORIZATION", "Digest username=\"anna\"")
        .send()
        .expect_text(r#""username=\"anna\"""#);
}

#[test]
fn other_authorization_sets_nothing() {
    for value in ["Bearer abc", "Basic", "Basic %%%", "Digest", ""] {
        let request = value_of(
            "array_filter(array_keys($_SERVER), fn($n) => str_starts_with($n, 'PHP_AUTH'))",
        )
        .param("HTTP_AUTHORIZATION", value);
        let names = request.send().json();
        // PHP takes what it can of a Basic header.
        if !value.starts_with("Basic ") {
            assert!(
                !names.to_string().contains("PHP_AUTH_USER"),
                "{value:?}: {names}"
            );
        }
    }
}

#[test]
fn getallheaders_gives_the_request_headers() {
    let request = value_of("[getallheaders(), getallheaders() === apache_request_headers()]")
        .param("HTTP_X_FORWARDED_FOR", "192.0.2.9")
        .param("HTTP_ACCEPT", "text/*")
        .post("application/json", "{}");
    let answer = request.send().json();
    assert_eq!(answer[1], true);
    assert_eq!(
        answer[0],
        json!({
            "Host": "www.example.org",
            "X-Forwarded-For": "192.0.2.9",
            "Accept": "text/*",
            "Content-Type": "application/json",
            "Content-Length": "2",
        })
    );
}

// --- Nonsense ----------------------------------------------------------------------------------

#[test]
fn a_path_with_a_nul_byte_is_rejected() {
    let script = run("echo 'ran';");
    for (name, value) in [
        (
            "SCRIPT_FILENAME",
            format!("{}\0.png", script.text("SCRIPT_FILENAME")),
        ),
        (
            "SCRIPT_FILENAME",
            format!("{}\0", script.text("SCRIPT_FILENAME")),
        ),
        ("PATH_INFO", "/a\0b".to_owned()),
        ("DOCUMENT_ROOT", "/srv\0".to_owned()),
    ] {
        let response = script.clone().param(name, &value).send();
        assert!(
            matches!(response.status, 400 | 403 | 404) && response.text() != "ran",
            "{name} = {value:?}: {response:?}"
        );
    }
}

#[test]
fn a_value_may_hold_any_other_byte() {
    let value: Vec<u8> = (1..=255).collect();
    let response = run("echo bin2hex($_SERVER['X_BYTES']);")
        .param("X_BYTES", &value)
        .send();
    let expected: String = value.iter().map(|byte| format!("{byte:02x}")).collect();
    response.expect_text(&expected);
}

#[test]
fn a_request_without_method_is_no_reason_to_die() {
    let response = run("echo 'ran';").without("REQUEST_METHOD").send();
    assert!(matches!(response.status, 200 | 400), "{response:?}");
    SERVER.expect_alive();
}

#[test]
fn a_body_without_end_is_handed_over_once_it_is_long_enough() {
    // Some clients never end STDIN.
    let request = run("echo file_get_contents('php://input');").post("text/plain", "a body");
    let mut client = request.connect();
    client.send(&request.begin());
    client.send(&record(PARAMS, 1, &request.pairs()));
    client.send(&record(PARAMS, 1, b""));
    client.send(&record(STDIN, 1, b"a body"));
    client.response(1).expect_text("a body");
}
