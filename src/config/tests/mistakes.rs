//! Every mistake, and what is said about it.

use std::path::Path;

use super::{Files, Options, WWW, load};

#[test]
fn mistakes_name_the_line_and_the_remedy() {
    for (line, message) in [
        (
            "lisen = 9000",
            "unknown entry 'lisen'; did you mean 'listen'?",
        ),
        (
            "pm_max_requests = 1",
            "unknown entry 'pm_max_requests'; did you mean 'pm.max_requests'?",
        ),
        ("foo = 1", "unknown entry 'foo'; correct or remove the line"),
        (
            "pid = /x",
            "unknown entry 'pid' in a pool's section; move the line into [global]",
        ),
        ("env = 1", "unknown entry 'env'; write 'env[NAME] = VALUE'"),
        (
            "listen[a] = 1",
            "unknown directive 'listen'; write 'listen = VALUE'",
        ),
        (
            "foo[a] = 1",
            "unknown directive 'foo'; correct or remove the line",
        ),
        (
            "php_value[] = 1",
            "You must provide a key for field 'php_value'",
        ),
        (
            "env[A] = ",
            "unable to parse value for entry 'env[A]': '' is not a value for a variable; give it one, or remove the line",
        ),
        (
            "env['A=B'] = 1",
            "env[A=B]: 'A=B' cannot be a variable's name; use a name without '='",
        ),
        (
            "php_flag[x] = maybe",
            "unable to parse value for entry 'php_flag[x]': 'maybe' is not a boolean; use yes or no",
        ),
        (
            "pm.max_children = 5x",
            "unable to parse value for entry 'pm.max_children': '5x' is not a whole number from 1 to 2147483647",
        ),
        (
            "clear_env = perhaps",
            "unable to parse value for entry 'clear_env': 'perhaps' is not a boolean; use yes or no",
        ),
        (
            "pm = dynamic",
            "unable to parse value for entry 'pm': 'dynamic' is not something this version of howdah can do yet; \
             use pm = static, which keeps pm.max_children of them ready",
        ),
        (
            "pm = forking",
            "unable to parse value for entry 'pm': 'forking' is not a process manager; use static",
        ),
        (
            "slowlog = /x",
            "slowlog = /x: this version of howdah does not read slowlog yet; remove the line",
        ),
        (
            "access.suppress_path[] = /x",
            "access.suppress_path[] = /x: this version of howdah does not read access.suppress_path[] yet; remove the line",
        ),
        (
            "listen",
            "'listen' has no value; write 'listen = VALUE', or remove the line",
        ),
        (
            "user = a=b",
            "syntax error, unexpected '=b'; put a value that holds any of = ; | & ^ ~ ! ( ) \" ' in double quotes",
        ),
        (
            "[]",
            "a section without a name; write the pool's name between the brackets: [www]",
        ),
    ] {
        let files = Files::new(&[("a.conf", &format!("{WWW}{line}\n"))]);
        assert_eq!(
            files.errors("a.conf", Options::default()),
            [format!("[DIR/a.conf:5] {message}")],
            "{line}"
        );
    }
}

#[test]
fn mistakes_of_a_pool_name_the_pool() {
    let rest = "pm = static\npm.max_children = 1\n";
    let at_port = format!("listen = 9000\n{rest}");
    let long = "x".repeat(200);
    for (text, message) in [
        (
            format!("[www]\n{rest}"),
            "[DIR/a.conf:1] [pool www] no listen address have been defined!; add a line such as 'listen = 127.0.0.1:9000'",
        ),
        (
            format!("[www]\n{rest}listen = \n"),
            "[DIR/a.conf:4] [pool www] no listen address have been defined!; add a line such as 'listen = 127.0.0.1:9000'",
        ),
        (
            "[www]\nlisten = 9000\npm.max_children = 1\n".into(),
            "[DIR/a.conf:1] [pool www] the process manager is missing; add the line 'pm = static'",
        ),
        (
            "[www]\nlisten = 9000\npm = static\n".into(),
            "[DIR/a.conf:1] [pool www] pm.max_children must be a positive value; add a line such as 'pm.max_children = 5'",
        ),
        (
            format!("[www]\n{rest}listen = 127.0.0.1:69002\n"),
            "[DIR/a.conf:4] [pool www] listen = 127.0.0.1:69002: invalid port value '69002'; use a number from 1 to 65535",
        ),
        (
            format!("[www]\n{rest}listen = /{long}\n"),
            &format!(
                "[DIR/a.conf:4] [pool www] listen = /{long}: the path is 201 bytes long, a Unix socket's path has at most 107; choose a shorter one"
            ),
        ),
        (
            format!("[www]\n{at_port}chdir = nowhere\n"),
            "[DIR/a.conf:5] [pool www] the chdir path 'DIR/nowhere' does not exist or is not a directory; create it or correct the path",
        ),
        (
            format!("[www]\n{at_port}prefix = nowhere\n"),
            "[DIR/a.conf:5] [pool www] the prefix 'DIR/nowhere' does not exist or is not a directory; create it or correct the path",
        ),
        (
            format!("[www]\n{at_port}[b]\nlisten = [::]:9000\n{rest}"),
            "[DIR/a.conf:6] [pool b] unable to set listen address as it's already used in another pool 'www' ([::]:9000); give each pool its own",
        ),
        (
            "[global]\n".into(),
            "No pool defined. at least one pool section must be specified in config file 'DIR/a.conf'; add one, such as [www]",
        ),
        (
            format!("[global]\npid = /run/$pool\n{WWW}"),
            "[DIR/a.conf:2] pid = /run/$pool: Can't use '$pool' when the pool is not defined; write the path out",
        ),
        (
            format!("[global]\nenv[A] = 1\n{WWW}"),
            "[DIR/a.conf:2] env[A]: Array are not allowed in the global section; move the line into a pool's section",
        ),
        (
            format!("[global]\nuser = x\n{WWW}"),
            "[DIR/a.conf:2] unknown entry 'user' in the global section; move the line into a pool's section",
        ),
        (
            format!("[global]\nerror_log = syslog\n{WWW}"),
            "[DIR/a.conf:2] unable to parse value for entry 'error_log': 'syslog' is not something this version of howdah can do yet; \
             use a file's path, or /dev/stderr",
        ),
    ] {
        let files = Files::new(&[("a.conf", &text)]);
        assert_eq!(
            files.errors("a.conf", Options::default()),
            [message],
            "{text}"
        );
    }
}

#[test]
fn all_mistakes_are_reported_at_once() {
    let files = Files::new(&[
        (
            "a.conf",
            "[www]\nfoo = 1\npm = dynamic\ninclude = b.inc\nlisten = 0\nslowlog = x\n[b]\n",
        ),
        ("b.inc", "\n\nbar = 2\n"),
    ]);
    let errors = files.errors("a.conf", Options::default());
    let places: Vec<&str> = errors
        .iter()
        .map(|error| error.split(']').next().unwrap_or_default())
        .collect();
    // Lines first, then each pool: www lacks a port and children, b lacks everything; "pm = dynamic" is not missing.
    let expected = [
        "[DIR/a.conf:2",
        "[DIR/a.conf:3",
        "[DIR/b.inc:3",
        "[DIR/a.conf:6",
        "[DIR/a.conf:5",
        "[DIR/a.conf:1",
        "[DIR/a.conf:7",
        "[DIR/a.conf:7",
        "[DIR/a.conf:7",
    ];
    assert_eq!(places, expected, "{errors:#?}");
}

#[test]
fn what_an_unreadable_line_may_have_said_is_not_missed() {
    let files = Files::new(&[("a.conf", "[www]\nlisten = a=b\n")]);
    let errors = files.errors("a.conf", Options::default());
    assert_eq!(errors.len(), 1, "{errors:#?}");
    assert_eq!(
        Files::new(&[]).errors("a.conf", Options::default()),
        ["failed to open configuration file 'DIR/a.conf': No such file or directory (os error 2)"]
    );
}

#[test]
fn root_names_somebody_else() {
    let root = Options {
        as_root: true,
        ..Options::default()
    };
    let errors = |lines: &str, options| {
        Files::new(&[("a.conf", &format!("{WWW}{lines}"))]).errors("a.conf", options)
    };
    let missing = "[DIR/a.conf:1] [pool www] user has not been defined; add a line such as 'user = www-data' (or start with -R to run PHP as root)";
    assert_eq!(errors("", root), [missing]);
    let as_root =
        "please specify user and group other than root (or start with -R to run PHP as root)";
    assert_eq!(
        errors("user = root\n", root),
        [format!("[DIR/a.conf:5] [pool www] user = root: {as_root}")]
    );
    assert_eq!(
        errors("user = www-data\ngroup = 0\n", root),
        [format!("[DIR/a.conf:6] [pool www] group = 0: {as_root}")]
    );
    assert_eq!(errors("user = www-data\n", root), [""; 0]);
    assert_eq!(
        errors(
            "",
            Options {
                allow_root: true,
                ..root
            }
        ),
        [""; 0]
    );
    assert_eq!(errors("", Options::default()), [""; 0]);
}

#[test]
fn the_prefix_of_the_command_line_exists() {
    let files = Files::new(&[("a.conf", WWW)]);
    let errors = load(
        &files.path("a.conf"),
        &Options {
            prefix: Some(Path::new("/nowhere")),
            ..Options::default()
        },
    )
    .unwrap_err();
    assert_eq!(
        errors.to_string(),
        "the global prefix '/nowhere' does not exist or is not a directory; create it or correct the path"
    );
}

#[test]
fn a_file_that_includes_itself_ends() {
    let files = Files::new(&[("a.conf", &format!("include = a.conf\n{WWW}"))]);
    let message = "[DIR/a.conf:1] include = DIR/a.conf: failed to include more than 5 files recursively; include them from the main file";
    assert_eq!(files.errors("a.conf", Options::default()), [message]);
}
