//! What is not run, and what is answered then; the parts of a request that are no path.

use super::*;

#[test]
fn only_allowed_endings_run() {
    let root = Root::new(&["a.php", "a.PHP", "a.txt", "evil.jpg", ".php", "dir/"]);
    let ask = |path: &str, rules: &Rules<'_>| root.server(&[("SCRIPT_FILENAME", path)], rules);
    assert!(ask("ROOT/a.php", &rules()).is_ok());
    for path in ["ROOT/a.txt", "ROOT/a.PHP", "ROOT/dir"] {
        assert_eq!(ask(path, &rules()), forbids(&root, path), "{path}");
        assert!(
            ask(
                path,
                &Rules {
                    limit_extensions: &[],
                    ..rules()
                }
            )
            .is_ok(),
            "{path}"
        );
        assert_eq!(ask(path, &as_is()), forbids(&root, path), "{path}");
    }
    assert_eq!(
        ask("ROOT/evil.jpg/", &rules()),
        forbids(&root, "ROOT/evil.jpg")
    );
    assert_eq!(ask("", &rules()), forbids(&root, ""));
    assert_eq!(
        ask(
            "",
            &Rules {
                limit_extensions: &[],
                ..rules()
            }
        ),
        Err(Refusal::NotFound)
    );
    // Letters that only Unicode takes for the same.
    let endings = [".ſk".to_owned()];
    assert_eq!(
        ask(
            "ROOT/a.sk",
            &Rules {
                limit_extensions: &endings,
                ..as_is()
            }
        ),
        forbids(&root, "ROOT/a.sk")
    );
}

#[test]
fn what_php_cannot_open_gets_php_fpms_answer() {
    let root = Root::new(&["a.php", "evil.jpg"]);
    let answer = |path: &str, kind: io::ErrorKind| {
        let mut params = root.params(&[("SCRIPT_FILENAME", path)]);
        let refusal = resolve(&mut params, &rules())
            .unwrap()
            .not_opened(&kind.into(), &rules());
        (
            refusal.status(),
            refusal.body().to_str().unwrap(),
            refusal
                .to_string()
                .replace(root.0.path().to_str().unwrap(), "ROOT"),
        )
    };
    let missing = (
        404,
        "File not found.\n",
        "Primary script unknown".to_owned(),
    );
    assert_eq!(answer("ROOT/missing.php", io::ErrorKind::NotFound), missing);
    assert_eq!(
        answer("ROOT/nowhere/a.php", io::ErrorKind::NotFound),
        missing
    );
    // The classic: nginx without try_files passes an uploaded picture as a script.
    let denied =
        "Access to the script 'ROOT/evil.jpg' has been denied (see security.limit_extensions)";
    assert_eq!(
        answer("ROOT/evil.jpg/x.php", io::ErrorKind::NotADirectory),
        (403, "Access denied.\n", denied.to_owned())
    );
    let (status, body, message) = answer("ROOT/a.php", io::ErrorKind::PermissionDenied);
    assert_eq!((status, body), (403, "Access denied.\n"));
    assert!(
        message.starts_with("Unable to open primary script: ROOT/a.php ("),
        "{message}"
    );
    assert_eq!(
        answer("ROOT/a.php", io::ErrorKind::Other).1,
        "No input file specified.\n"
    );
}

#[test]
fn a_script_that_cannot_be_opened_for_now_is_not_missing() {
    let root = Root::new(&["a.php"]);
    let mut params = root.params(&[("SCRIPT_FILENAME", "ROOT/a.php")]);
    let script = resolve(&mut params, &rules()).unwrap();
    for number in [Errno::EMFILE, Errno::ENFILE] {
        let refusal = script.not_opened(&io::Error::from(number), &rules());
        assert_eq!(refusal.status(), 503, "{refusal}");
        assert!(refusal.to_string().contains("LimitNOFILE"), "{refusal}");
    }
    let refusal = script.not_opened(&io::Error::from_raw_os_error(0), &rules());
    assert!(
        refusal.to_string().ends_with("(not a regular file)"),
        "{refusal}"
    );
}

#[test]
fn parent_segments_are_not_found() {
    let root = Root::new(&["a.php", "dir/", "evil.jpg"]);
    for path in [
        "ROOT/dir/../a.php",
        "ROOT/../a.php",
        "ROOT/..",
        "../a.php",
        "ROOT/nowhere/../a.php",
    ] {
        for rules in [
            rules(),
            Rules {
                limit_extensions: &[],
                ..as_is()
            },
        ] {
            assert_eq!(
                root.server(&[("SCRIPT_FILENAME", path)], &rules),
                Err(Refusal::NotFound),
                "{path}"
            );
        }
    }
    assert_eq!(
        root.server(&[("SCRIPT_FILENAME", "ROOT/evil.jpg/../a.php")], &rules()),
        forbids(&root, "ROOT/evil.jpg")
    );
    // In PATH_INFO, and within a name, dots are dots.
    assert!(
        root.server(&[("SCRIPT_FILENAME", "ROOT/a.php/../x")], &rules())
            .is_ok()
    );
    assert!(
        root.server(&[("SCRIPT_FILENAME", "ROOT/a..php")], &rules())
            .is_ok()
    );
}

#[test]
fn doc_root_is_where_php_looks() {
    let root = Root::new(&["a.php"]);
    let path = root.expand("ROOT");
    let rules = Rules {
        doc_root: Some(path.as_bytes()),
        ..rules()
    };
    root.check(
        &rules,
        &[("SCRIPT_FILENAME", "ROOT/a.php"), ("SCRIPT_NAME", "/a.php")],
        &[
            "SCRIPT_FILENAME=ROOT/a.php",
            "SCRIPT_NAME=/a.php",
            "DOCUMENT_ROOT=ROOT",
            "ROOT/a.php for /a.php",
        ],
    );
    // php-fpm checks SCRIPT_FILENAME and lets PHP open the other file.
    let sent = [
        ("SCRIPT_FILENAME", "ROOT/a.php"),
        ("SCRIPT_NAME", "/evil.jpg"),
    ];
    assert_eq!(root.server(&sent, &rules), forbids(&root, "ROOT//evil.jpg"));
    let sent = [
        ("SCRIPT_FILENAME", "ROOT/a.php"),
        ("SCRIPT_NAME", "/../b.php"),
    ];
    assert_eq!(root.server(&sent, &rules), Err(Refusal::NotFound));
    let relative = Rules {
        doc_root: Some(b"htdocs"),
        ..rules
    };
    assert!(
        root.server(
            &[
                ("SCRIPT_FILENAME", "ROOT/a.php"),
                ("SCRIPT_NAME", "/evil.jpg")
            ],
            &relative
        )
        .is_ok()
    );
}

#[test]
fn http_proxy_is_dropped() {
    let root = Root::new(&[]);
    let sent = [
        ("SCRIPT_FILENAME", "ROOT/a.php"),
        ("HTTP_PROXY", "http://evil"),
    ];
    root.check(
        &rules(),
        &sent,
        &["SCRIPT_FILENAME=ROOT/a.php", "ROOT/a.php for null"],
    );
}

#[test]
fn nul_bytes_are_refused() {
    let root = Root::new(&["a.php"]);
    for name in [
        "SCRIPT_FILENAME",
        "PATH_TRANSLATED",
        "PATH_INFO",
        "SCRIPT_NAME",
        "REDIRECT_URL",
        "DOCUMENT_ROOT",
        "QUERY_STRING",
        "CONTENT_TYPE",
        "REQUEST_METHOD",
    ] {
        for rules in [rules(), as_is()] {
            let refusal = root
                .server(
                    &[
                        ("SCRIPT_FILENAME", "ROOT/a.php"),
                        (name, "ROOT/a.php\0.jpg"),
                    ],
                    &rules,
                )
                .unwrap_err();
            assert_eq!((refusal.status(), refusal), (400, NUL_BYTE), "{name}");
        }
    }
}

#[test]
fn content_length_is_a_length_or_unknown() {
    use ContentLength::{Known, UntilEnd};
    let bad = Err(Refusal::BadRequest("CONTENT_LENGTH is not a length"));
    assert_eq!(content_length(None), Ok(UntilEnd));
    for (text, expected) in [
        ("", Ok(UntilEnd)),
        ("-1", Ok(UntilEnd)),
        ("0", Ok(Known(0))),
        ("0010", Ok(Known(10))),
        ("9223372036854775807", Ok(Known(i64::MAX as u64))),
        ("9223372036854775808", bad.clone()),
        ("99999999999999999999", bad.clone()),
        ("-2", bad.clone()),
        ("+1", bad.clone()),
        ("1x", bad.clone()),
        (" 1", bad.clone()),
        ("1,1", bad.clone()),
        ("0x10", bad.clone()),
        ("٣", bad.clone()),
    ] {
        assert_eq!(content_length(Some(text.as_bytes())), expected, "{text:?}");
    }
    assert_eq!(content_length(Some(b"\xff")), bad);
}

#[test]
fn the_rest_of_the_request_is_carried_over() {
    let root = Root::new(&[]);
    let sent = [
        ("SCRIPT_FILENAME", "/a.php"),
        ("QUERY_STRING", "a=b"),
        ("CONTENT_TYPE", "text/plain"),
        ("CONTENT_LENGTH", "3"),
    ];
    let script = resolve(&mut root.params(&sent), &rules()).unwrap();
    assert_eq!(
        (script.method.as_c_str(), script.query_string.as_c_str()),
        (c"GET", c"a=b")
    );
    assert_eq!(
        (script.content_type.as_c_str(), script.content_length),
        (c"text/plain", ContentLength::Known(3))
    );
    let script = resolve(&mut root.params(&[("SCRIPT_FILENAME", "/a.php")]), &rules()).unwrap();
    assert_eq!(
        (
            script.query_string.as_c_str(),
            script.content_type.as_c_str()
        ),
        (c"", c"")
    );
    let mut params = Params::default();
    params.set(b"SCRIPT_FILENAME", b"/a.php");
    assert_eq!(
        resolve(&mut params, &rules()),
        Err(Refusal::BadRequest("REQUEST_METHOD is missing"))
    );
}

#[test]
fn long_paths_end() {
    let root = Root::new(&[]);
    for path in [
        "/".repeat(100_000),
        "/a".repeat(100_000),
        format!("/{}.txt", "a".repeat(100_000)),
    ] {
        assert_eq!(
            root.server(&[("SCRIPT_FILENAME", &path)], &rules()),
            Err(Refusal::NotFound)
        );
    }
}
