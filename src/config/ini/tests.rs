//! The dialect line by line, and against PHP itself.

#![allow(clippy::unwrap_used)]

use super::*;

struct Fixed;

impl Names for Fixed {
    fn variable(&self, name: &str) -> Option<String> {
        (name == "HOME").then(|| "/root".to_owned())
    }

    fn constant(&self, name: &str) -> Option<String> {
        match name {
            "E_ALL" => Some("32767".to_owned()),
            "E_NOTICE" => Some("8".to_owned()),
            _ => None,
        }
    }
}

fn parse(line: &str) -> Result<Vec<Statement>, SyntaxError> {
    let (statements, result) = parse_line(line.as_bytes(), &Fixed);
    result.map(|()| statements)
}

/// The value that `name = text` gives.
fn value(text: &str) -> Result<String, SyntaxError> {
    match parse(&format!("name = {text}"))?.as_slice() {
        [Statement::Entry { name, value }] if name == "name" => Ok(value.clone()),
        other => panic!("{text}: {other:?}"),
    }
}

#[test]
fn values_read_as_in_php() {
    for (text, expected) in [
        ("", ""),
        ("  www-data\t", "www-data"),
        ("a b  c", "a b  c"),
        ("a ; comment", "a"),
        ("a;b", "a"),
        (";", ""),
        ("\"a;b=c\"", "a;b=c"),
        ("'a;b=${HOME}'", "a;b=${HOME}"),
        ("''", ""),
        ("a \"b\" c", "abc"),
        (r#""say \"hi\" \\ \$x \n""#, r#"say "hi" \ $x \n"#),
        (r#""C:\path\""#, r"C:\path\"),
        ("${HOME}/x", "/root/x"),
        ("\"${HOME}/x\"", "/root/x"),
        ("a${NOT_SET}b", "ab"),
        ("${NOT_SET:-b c}", "b c"),
        ("${NOT_SET:-}", ""),
        ("${HOME:-b}", "/root"),
        ("${NOT_SET:-${ALSO_NOT:-\"x}\"}}", "x}"),
        ("$HOME", "$HOME"),
        ("a$", "a$"),
        ("$pool.sock", "$pool.sock"),
        ("on", "1"),
        ("Yes ; indeed", "1"),
        ("TRUE", "1"),
        ("off", ""),
        ("none", ""),
        ("null", ""),
        ("\"on\"", "on"),
        ("online", "online"),
        ("E_ALL", "32767"),
        ("E_ALL.log", "E_ALL.log"),
        ("E_ALL & ~E_NOTICE", "32759"),
        ("(1 | 2) ^ 7", "4"),
        ("1|2&~4", "3"),
        ("!0", "1"),
        ("~99999999999999999999", "0"),
        ("[::1]:9000", "[::1]:9000"),
        ("a\rb = c", "a"),
    ] {
        let read = parse(&format!("name = {text}"));
        let first = read.map(|statements| statements.into_iter().next());
        let expected = Statement::Entry {
            name: "name".to_owned(),
            value: expected.to_owned(),
        };
        assert_eq!(first, Ok(Some(expected)), "{text}");
    }
}

#[test]
fn what_php_refuses_is_refused() {
    for text in [
        "a=b", "a(b", "a)", "(a", "a on", "on a", "\"a", "'a", "a'", "${HOME", "${}", "${A B!}",
        "!", "a |", "a\"b", "${A:-b",
    ] {
        assert!(
            matches!(value(text), Err(SyntaxError::Unexpected(_))),
            "{text}: {:?}",
            value(text)
        );
    }
    for line in [
        "= a",
        "on = 1",
        "[a",
        "a[b = c",
        "a[b]",
        "a[b] c",
        "\"a\" = b",
        " [a]",
        "a | b = c",
        "a[b;c] = d",
    ] {
        assert!(parse(line).is_err(), "{line}: {:?}", parse(line));
    }
}

#[test]
fn lines_are_statements() {
    let section = |name: &str| Statement::Section(name.to_owned());
    let entry = |name: &str, value: &str| Statement::Entry {
        name: name.to_owned(),
        value: value.to_owned(),
    };
    let element = |name: &str, key: &str, value: &str| Statement::Element {
        name: name.to_owned(),
        key: key.to_owned(),
        value: value.to_owned(),
    };
    for (line, expected) in [
        ("", vec![]),
        ("   ", vec![]),
        ("; comment", vec![]),
        (" \t; comment", vec![]),
        ("\r", vec![]),
        ("[www]", vec![section("www")]),
        ("[www] ; comment", vec![section("www")]),
        ("\t[www]", vec![section("www")]),
        ("[]", vec![section("")]),
        ("[${HOME} 'x']", vec![section("/root x")]),
        ("[on]", vec![section("on")]),
        ("[www] user = x", vec![section("www"), entry("user", "x")]),
        ("\u{feff}user = x", vec![entry("user", "x")]),
        (" user\t=x\r", vec![entry("user", "x")]),
        ("a = 1\rb = 2", vec![entry("a", "1"), entry("b", "2")]),
        ("user", vec![Statement::Bare("user".to_owned())]),
        ("env[A] = b", vec![element("env", "A", "b")]),
        ("env[ \"A B\" ] = b", vec![element("env", "A B", "b")]),
        ("env[] = b", vec![element("env", "", "b")]),
        ("env[E_ALL] = b", vec![element("env", "32767", "b")]),
    ] {
        assert_eq!(parse(line), Ok(expected), "{line:?}");
    }
}

#[test]
fn statements_before_a_mistake_are_kept() {
    let (statements, result) = parse_line(b"[www] user = a=b", &Fixed);
    assert_eq!(statements, [Statement::Section("www".to_owned())]);
    assert_eq!(
        result,
        Err(SyntaxError::Unexpected(Token::Text("=b".to_owned())))
    );
}

#[test]
fn nesting_is_bounded() {
    let deep = |text: &str| value(&text.repeat(100_000));
    assert_eq!(deep("("), Err(SyntaxError::TooDeep));
    assert_eq!(deep("~"), Err(SyntaxError::TooDeep));
    assert_eq!(deep("${A:-"), Err(SyntaxError::TooDeep));
    assert_eq!(deep("\"${A:-"), Err(SyntaxError::TooDeep));
}

#[test]
fn bytes_that_are_no_text_are_refused() {
    assert_eq!(parse_line(b"user = a\0b", &Fixed).1, Err(SyntaxError::Nul));
    assert_eq!(
        parse_line(b"user = \xe9", &Fixed).1,
        Err(SyntaxError::NotUtf8)
    );
    assert_eq!(
        parse_line(b"user = x ; \xe9t\xe9 1998", &Fixed).1,
        Ok(()),
        "a comment in Latin-1 does no harm"
    );
}

mod oracle {
    use std::io::Write as _;
    use std::process::{Command, Stdio};

    use proptest::prelude::*;
    use proptest::strategy::ValueTree as _;
    use proptest::test_runner::TestRunner;

    use super::{Statement, parse_line};
    use crate::config::Options;

    /// Prints for each line `["v"|"k"|"s", TEXT]` of its input the value, the key or the section that PHP reads, or null.
    const PHP: &str = r#"
        while (($line = fgets(STDIN)) !== false) {
            [$kind, $text] = json_decode($line);
            $read = @parse_ini_string("$text\n", true, INI_SCANNER_NORMAL);
            if ($read === false) $seen = null;
            elseif ($kind == "v") $seen = $read["name"] ?? null;
            elseif ($kind == "k") $seen = is_array($read["name"] ?? null) ? (string) array_key_first($read["name"]) : null;
            else $seen = (string) array_key_first($read);
            echo json_encode($seen), "\n";
        }"#;

    #[test]
    fn lines_mean_what_they_mean_to_php() {
        const WORDS: &[&str] = &[
            "on", "No", "null", "true", "E_ALL", "E_NOTICE", "www-data", "a", "b.c", "5", "-12",
            "3s", "/x/$y", "$pool", "é", "\\",
        ];
        const MARKS: &[&str] = &[
            " ",
            "\t",
            ";",
            "\"",
            "'q'",
            "${HOWDAH_A}",
            "${NOT_SET}",
            "${",
            "}",
            "$",
            "|",
            "&",
            "^",
            "~",
            "!",
            "(",
            ")",
            "=",
            "[",
            "]",
            "\\\"",
            "\\\\",
            "\\$",
            ",",
            ":",
            "{",
        ];
        let piece =
            prop_oneof![3 => proptest::sample::select(WORDS), 2 => proptest::sample::select(MARKS)];
        let text = proptest::collection::vec(piece, 0..7).prop_map(|pieces| pieces.concat());
        let line =
            (proptest::sample::select(&["v", "k", "s"][..]), text).prop_map(|(kind, text)| {
                let line = match kind {
                    "v" => format!("name = {text}"),
                    "k" => format!("name[{text}] = 1"),
                    _ => format!("[{text}]"),
                };
                (kind, line)
            });
        let mut runner = TestRunner::deterministic();
        let lines: Vec<_> = (0..100_000)
            .map(|_| line.new_tree(&mut runner).unwrap().current())
            .collect();

        let mut php = Command::new("php")
            .args(["-n", "-r", PHP])
            .env("HOWDAH_A", "seen")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdin = php.stdin.take().unwrap();
        let input: String = lines
            .iter()
            .map(|line| serde_json::to_string(line).unwrap() + "\n")
            .collect();
        let writer = std::thread::spawn(move || stdin.write_all(input.as_bytes()).unwrap());
        let output = php.wait_with_output().unwrap();
        writer.join().unwrap();

        let env = |name: &str| (name == "HOWDAH_A").then(|| "seen".to_owned());
        let options = Options {
            env: &env,
            php_version_id: 80_200,
            ..Options::default()
        };
        let answers = String::from_utf8(output.stdout).unwrap();
        assert_eq!(answers.lines().count(), lines.len());
        let mut wrong = Vec::new();
        for ((kind, line), answer) in lines.iter().zip(answers.lines()) {
            let (statements, result) = parse_line(line.as_bytes(), &options);
            let ours = result
                .ok()
                .and(statements.into_iter().next())
                .map(|statement| match statement {
                    Statement::Section(name)
                    | Statement::Entry { value: name, .. }
                    | Statement::Element { key: name, .. } => name,
                    Statement::Bare(name) => name,
                });
            let php: Option<String> = serde_json::from_str(answer).unwrap();
            // Where ours is meant to differ: PHP takes the line's end after a dollar for text, and lets a quote without
            // its partner end a value. It also numbers a key that is empty.
            let differs = line.ends_with('$') || line.contains("$\\") || line.contains("$'");
            let numbered = *kind == "k" && ours.as_deref() == Some("");
            if ours != php && !differs && !numbered {
                wrong.push(format!("{kind} {line:?}: ours {ours:?}, PHP's {php:?}"));
            }
        }
        assert!(
            wrong.is_empty(),
            "{} lines differ:\n{}",
            wrong.len(),
            wrong.join("\n")
        );
    }
}
