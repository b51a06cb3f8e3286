//! The rules, one by one, on files of their own. What php-fpm 8.2 answers was tried, on these and on some thirty thousand
//! random requests.

#![allow(clippy::unwrap_used)]

mod refusals;

use super::*;

/// A document root: the files are empty, a name that ends in `/` is a directory.
struct Root(tempfile::TempDir);

impl Root {
    fn new(files: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        for file in files {
            let path = dir.path().join(file);
            if file.ends_with('/') {
                fs::create_dir_all(path).unwrap();
            } else {
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(path, "").unwrap();
            }
        }
        Self(dir)
    }

    /// `ROOT` in a text is the document root's path.
    fn expand(&self, text: &str) -> String {
        text.replace("ROOT", self.0.path().to_str().unwrap())
    }

    /// Resolves a request and shows what `$_SERVER` would hold, in the order of `SHOWN`, and then the file that is run.
    fn server(&self, sent: &[(&str, &str)], rules: &Rules<'_>) -> Result<Vec<String>, Refusal> {
        const SHOWN: [&str; 10] = [
            "SCRIPT_FILENAME",
            "SCRIPT_NAME",
            "PATH_INFO",
            "PATH_TRANSLATED",
            "DOCUMENT_ROOT",
            "ORIG_SCRIPT_FILENAME",
            "ORIG_SCRIPT_NAME",
            "ORIG_PATH_INFO",
            "ORIG_PATH_TRANSLATED",
            "HTTP_PROXY",
        ];
        let mut params = self.params(sent);
        let script = resolve(&mut params, rules)?;
        let root = self.0.path().to_str().unwrap();
        let text = |bytes: &[u8]| {
            String::from_utf8(bytes.to_vec())
                .unwrap()
                .replace(root, "ROOT")
        };
        let mut shown: Vec<String> = SHOWN
            .iter()
            .filter_map(|name| Some(format!("{name}={}", text(params.get(name.as_bytes())?))))
            .collect();
        let uri = script
            .request_uri
            .as_ref()
            .map_or("null".to_owned(), |uri| text(uri.as_bytes()));
        shown.push(format!(
            "{} for {uri}",
            text(script.path_translated.as_bytes())
        ));
        Ok(shown)
    }

    fn params(&self, sent: &[(&str, &str)]) -> Params {
        let mut params = Params::default();
        params.set(b"REQUEST_METHOD", b"GET");
        for (name, value) in sent {
            params.set(name.as_bytes(), self.expand(value).as_bytes());
        }
        params
    }

    fn check(&self, rules: &Rules<'_>, sent: &[(&str, &str)], expected: &[&str]) {
        assert_eq!(
            self.server(sent, rules),
            Ok(expected.iter().map(|&line| line.to_owned()).collect()),
            "{sent:?}"
        );
    }
}

static PHP_ONLY: std::sync::LazyLock<Vec<String>> =
    std::sync::LazyLock::new(|| vec![".php".to_owned(), ".phar".to_owned()]);

/// php-fpm's defaults.
fn rules() -> Rules<'static> {
    Rules {
        fix_pathinfo: true,
        discard_path: false,
        limit_extensions: &PHP_ONLY,
        doc_root: None,
    }
}

fn as_is() -> Rules<'static> {
    Rules {
        fix_pathinfo: false,
        ..rules()
    }
}

fn forbids(root: &Root, path: &str) -> Result<Vec<String>, Refusal> {
    Err(Refusal::Forbidden {
        script: CString::new(root.expand(path)).unwrap(),
    })
}

#[test]
fn the_usual_request_is_taken_as_it_is_and_nothing_is_looked_up() {
    // The file is not there, and nobody notices: that is PHP's to find out.
    Root::new(&[]).check(
        &rules(),
        &[
            ("SCRIPT_FILENAME", "ROOT/index.php"),
            ("SCRIPT_NAME", "/index.php"),
            ("DOCUMENT_ROOT", "ROOT"),
            ("PATH_INFO", ""),
        ],
        &[
            "SCRIPT_FILENAME=ROOT/index.php",
            "SCRIPT_NAME=/index.php",
            "PATH_INFO=",
            "DOCUMENT_ROOT=ROOT",
            "ROOT/index.php for /index.php",
        ],
    );
}

#[test]
fn path_info_is_split_off_where_a_file_is() {
    let root = Root::new(&["info.php", "site.php/", "site.php/index.php"]);
    // nginx without fastcgi_split_path_info.
    root.check(
        &rules(),
        &[
            ("SCRIPT_FILENAME", "ROOT/info.php/test/x"),
            ("SCRIPT_NAME", "/info.php/test/x"),
            ("DOCUMENT_ROOT", "ROOT/"),
        ],
        &[
            "SCRIPT_FILENAME=ROOT/info.php",
            "SCRIPT_NAME=/info.php/test/x",
            "PATH_TRANSLATED=ROOT",
            "DOCUMENT_ROOT=ROOT/",
            "ORIG_SCRIPT_FILENAME=ROOT/info.php/test/x",
            "ROOT/info.php for /info.php/test/x",
        ],
    );
    // The CGI way: PATH_INFO is the whole URI path.
    root.check(
        &rules(),
        &[
            ("SCRIPT_FILENAME", "ROOT/info.php/test"),
            ("SCRIPT_NAME", "/cgi/php"),
            ("PATH_INFO", "/info.php/test"),
            ("PATH_TRANSLATED", "ROOT/info.php/test"),
            ("DOCUMENT_ROOT", "ROOT"),
        ],
        &[
            "SCRIPT_FILENAME=ROOT/info.php",
            "SCRIPT_NAME=/info.php",
            "PATH_INFO=/test",
            "PATH_TRANSLATED=ROOT/test",
            "DOCUMENT_ROOT=ROOT",
            "ORIG_SCRIPT_FILENAME=ROOT/info.php/test",
            "ORIG_SCRIPT_NAME=/cgi/php",
            "ORIG_PATH_INFO=/info.php/test",
            "ORIG_PATH_TRANSLATED=ROOT/info.php/test",
            "ROOT/info.php for /info.php",
        ],
    );
    // A directory may be named like a script.
    root.check(
        &rules(),
        &[
            ("SCRIPT_FILENAME", "ROOT/site.php/index.php"),
            ("SCRIPT_NAME", "/index.php"),
        ],
        &[
            "SCRIPT_FILENAME=ROOT/site.php/index.php",
            "SCRIPT_NAME=/index.php",
            "ROOT/site.php/index.php for /index.php",
        ],
    );
}

#[test]
fn a_path_info_no_longer_than_the_tail_stays() {
    // php-fpm's test bug78599: an underflow there.
    let root = Root::new(&["info.php"]);
    root.check(
        &rules(),
        &[
            ("SCRIPT_FILENAME", "ROOT/info.php/AAAAAAAA"),
            ("PATH_INFO", ""),
        ],
        &[
            "SCRIPT_FILENAME=ROOT/info.php",
            "PATH_INFO=",
            "ORIG_SCRIPT_FILENAME=ROOT/info.php/AAAAAAAA",
            "ROOT/info.php for null",
        ],
    );
}

#[test]
fn without_a_document_root_it_is_worked_out() {
    Root::new(&["info.php"]).check(
        &rules(),
        &[
            ("SCRIPT_FILENAME", "ROOT/info.php/x"),
            ("SCRIPT_NAME", "/info.php"),
            ("PATH_INFO", "/x"),
        ],
        &[
            "SCRIPT_FILENAME=ROOT/info.php",
            "SCRIPT_NAME=/info.php",
            "PATH_INFO=/x",
            "PATH_TRANSLATED=ROOT/x",
            "ORIG_SCRIPT_FILENAME=ROOT/info.php/x",
            "ROOT/info.php for /info.php",
        ],
    );
}

#[test]
fn path_translated_stands_in_for_script_filename() {
    let root = Root::new(&["info.php"]);
    root.check(
        &rules(),
        &[
            ("PATH_TRANSLATED", "ROOT/info.php"),
            ("SCRIPT_NAME", "/info.php"),
        ],
        &[
            "SCRIPT_FILENAME=ROOT/info.php",
            "SCRIPT_NAME=/info.php",
            "PATH_TRANSLATED=ROOT/info.php",
            "ROOT/info.php for /info.php",
        ],
    );
    assert_eq!(
        root.server(&[("SCRIPT_NAME", "/info.php")], &rules()),
        Err(Refusal::NotFound)
    );
    assert_eq!(
        root.server(&[("SCRIPT_NAME", "/info.php")], &as_is()),
        Err(Refusal::NotFound)
    );
}

#[test]
fn apache_proxy_prefixes_are_stripped() {
    let root = Root::new(&["info.php"]);
    for sent in [
        "proxy:fcgi://localhost:9000ROOT/info.php",
        "PROXY:balancer://clusterROOT/info.php?q=1/2",
        "proxy:fcgi://ROOT/info.php",
    ] {
        for rules in [rules(), as_is()] {
            root.check(
                &rules,
                &[("SCRIPT_FILENAME", sent), ("SCRIPT_NAME", "/info.php")],
                &[
                    "SCRIPT_FILENAME=ROOT/info.php",
                    "SCRIPT_NAME=/info.php",
                    "ROOT/info.php for /info.php",
                ],
            );
        }
    }
    for sent in ["proxy:fcgi://localhost", "proxy:fcgi://localhost?x"] {
        assert_eq!(
            root.server(&[("SCRIPT_FILENAME", sent)], &rules()),
            Err(Refusal::NotFound),
            "{sent}"
        );
    }
}

#[test]
fn apache_proxypass_leaves_the_tail_in_script_name() {
    let root = Root::new(&["info.php"]);
    for (tail, name_tail) in [
        ("/pinfo", "/pinfo"),
        ("/1%202", "/1 2"),
        ("/1%20+2", "/1 +2"),
        ("/100%", "/100%"),
        ("/%zz", "/%zz"),
    ] {
        root.check(
            &rules(),
            &[
                (
                    "SCRIPT_FILENAME",
                    &format!("proxy:fcgi://hROOT/info.php{tail}"),
                ),
                ("SCRIPT_NAME", &format!("/info.php{name_tail}")),
            ],
            &[
                "SCRIPT_FILENAME=ROOT/info.php",
                "SCRIPT_NAME=/info.php",
                &format!("PATH_INFO={tail}"),
                &format!("PATH_TRANSLATED=ROOT{tail}"),
                &format!("ORIG_SCRIPT_FILENAME=ROOT/info.php{tail}"),
                &format!("ORIG_SCRIPT_NAME=/info.php{name_tail}"),
                "ROOT/info.php for /info.php",
            ],
        );
    }
    // Another tail is none of our business.
    root.check(
        &rules(),
        &[
            ("SCRIPT_FILENAME", "proxy:fcgi://hROOT/info.php/y"),
            ("SCRIPT_NAME", "/info.php/x"),
        ],
        &[
            "SCRIPT_FILENAME=ROOT/info.php",
            "SCRIPT_NAME=/info.php/x",
            "PATH_INFO=/y",
            "ORIG_SCRIPT_FILENAME=ROOT/info.php/y",
            "ROOT/info.php for /info.php/x",
        ],
    );
}

#[test]
fn an_encoded_nul_byte_matches_nothing() {
    let root = Root::new(&["info.php"]);
    let sent = [
        ("SCRIPT_FILENAME", "proxy:fcgi://hROOT/info.php/%00x"),
        ("SCRIPT_NAME", "/info.php/"),
    ];
    let shown = root.server(&sent, &rules()).unwrap();
    assert!(
        shown.contains(&"SCRIPT_NAME=/info.php/".to_owned()),
        "{shown:?}"
    );
}

#[test]
fn iis_sends_script_name_in_path_info() {
    let root = Root::new(&["info.php"]);
    let iis = ("SERVER_SOFTWARE", "Microsoft-IIS/10.0");
    root.check(
        &rules(),
        &[
            iis,
            ("SCRIPT_FILENAME", "ROOT/info.php"),
            ("SCRIPT_NAME", "/info.php"),
            ("PATH_INFO", "/info.php/x"),
        ],
        &[
            "SCRIPT_FILENAME=ROOT/info.php",
            "SCRIPT_NAME=/info.php",
            "PATH_INFO=/x",
            "ORIG_PATH_INFO=/info.php/x",
            "ROOT/info.php for /info.php",
        ],
    );
    root.check(
        &as_is(),
        &[
            iis,
            ("SCRIPT_FILENAME", "ROOT/info.php"),
            ("SCRIPT_NAME", "/info.php"),
            ("PATH_INFO", "/info.php"),
        ],
        &[
            "SCRIPT_FILENAME=ROOT/info.php",
            "SCRIPT_NAME=/info.php",
            "ORIG_PATH_INFO=/info.php",
            "ROOT/info.php for /info.php",
        ],
    );
}

#[test]
fn redirect_url_makes_path_translated_the_script() {
    let root = Root::new(&["info.php"]);
    root.check(
        &rules(),
        &[
            ("SCRIPT_FILENAME", "/usr/lib/cgi-bin/php"),
            ("SCRIPT_NAME", "/cgi-bin/php"),
            ("PATH_INFO", "/info.php"),
            ("PATH_TRANSLATED", "ROOT/info.php"),
            ("REDIRECT_URL", "/info.php"),
        ],
        &[
            "SCRIPT_FILENAME=ROOT/info.php",
            "SCRIPT_NAME=/info.php",
            "ORIG_SCRIPT_FILENAME=/usr/lib/cgi-bin/php",
            "ORIG_SCRIPT_NAME=/cgi-bin/php",
            "ORIG_PATH_INFO=/info.php",
            "ORIG_PATH_TRANSLATED=ROOT/info.php",
            "ROOT/info.php for /info.php",
        ],
    );
    // Not through Apache's proxy, where REDIRECT_URL comes from rewriting.
    root.check(
        &rules(),
        &[
            ("SCRIPT_FILENAME", "proxy:fcgi://hROOT/info.php"),
            ("PATH_TRANSLATED", "ROOT/x"),
            ("REDIRECT_URL", "/r"),
            ("SCRIPT_NAME", "/info.php"),
        ],
        &[
            "SCRIPT_FILENAME=ROOT/info.php",
            "SCRIPT_NAME=/info.php",
            "PATH_TRANSLATED=ROOT/x",
            "ROOT/info.php for /info.php",
        ],
    );
}

#[test]
fn without_fix_pathinfo_the_server_is_believed() {
    let root = Root::new(&[]);
    let sent = [
        ("SCRIPT_FILENAME", "ROOT/a.php/x"),
        ("SCRIPT_NAME", "/a.php"),
        ("PATH_INFO", "/x"),
        ("PATH_TRANSLATED", "ROOT/b.php"),
    ];
    let params = [
        "SCRIPT_FILENAME=ROOT/a.php/x",
        "SCRIPT_NAME=/a.php",
        "PATH_INFO=/x",
        "PATH_TRANSLATED=ROOT/b.php",
    ];
    root.check(
        &as_is(),
        &sent,
        &[&params[..], &["ROOT/b.php for /x"]].concat(),
    );
    let any = Rules {
        discard_path: true,
        limit_extensions: &[],
        ..as_is()
    };
    root.check(
        &any,
        &sent,
        &[&params[..], &["ROOT/a.php/x for /x"]].concat(),
    );
}
