//! MediaWiki, with its data in SQLite.

use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Value;

use super::{expect_no_errors, open_to_all, php, with_opcache};
use crate::support::front::{Front, Kind};
use crate::support::http::Browser;
use crate::support::{Server, Setup};

const MEDIAWIKI: &str = "/usr/share/mediawiki";

#[test]
fn it_is_installed_edited_and_read() {
    let server = with_opcache(Setup::new())
        .pool("env[MW_CONFIG_FILE] = {state}/LocalSettings.php")
        .pool("php_value[memory_limit] = 256M")
        .start();
    let front = Front::start(Kind::Nginx, Path::new(MEDIAWIKI), &server.address);
    install(&server, &front.url());
    let mut browser = front.browser();

    let token = ask_token(&mut browser, "login");
    let answer = api(
        &mut browser,
        "clientlogin",
        &[
            ("username", "Ada"),
            ("password", "correct horse battery"),
            ("loginreturnurl", &front.url()),
            ("logintoken", &token),
        ],
    );
    assert_eq!(answer["clientlogin"]["status"], "PASS", "{answer}");

    let token = ask_token(&mut browser, "csrf");
    for (text, version) in [
        ("It carries a '''howdah'''.", 1),
        ("It '''carries''' a ''howdah''.", 2),
    ] {
        let fields = [("title", "Elephant"), ("text", text), ("token", &token)];
        let answer = api(&mut browser, "edit", &fields);
        assert_eq!(
            answer["edit"]["result"], "Success",
            "version {version}: {answer}"
        );
    }

    // As visitors read it, several at once, by two sorts of addresses.
    std::thread::scope(|scope| {
        for _ in 0..6 {
            scope.spawn(|| {
                for uri in ["/index.php?title=Elephant", "/index.php/Elephant"].repeat(3) {
                    front
                        .browser()
                        .get(uri)
                        .expect_text("It <b>carries</b> a <i>howdah</i>.");
                }
            });
        }
    });
    browser
        .get("/index.php?title=Elephant&action=history")
        .expect_text("Ada");
    let page = browser.get("/rest.php/v1/page/Elephant").expect(200).json();
    assert_eq!(page["source"], "It '''carries''' a ''howdah''.");
    browser
        .get("/load.php?lang=en&modules=startup&only=scripts&raw=1&skin=vector")
        .expect_text("mw.loader");
    let cached = server
        .run("echo opcache_get_status(false)['opcache_statistics']['num_cached_scripts'] ?? 0;")
        .send();
    let scripts: u32 = cached.text().parse().unwrap();
    assert!(scripts > 200, "opcache holds {scripts} scripts");
    expect_no_errors(&server);
}

fn install(server: &Server, url: &str) {
    let state = server.state();
    let output = Command::new(php())
        .arg(Path::new(MEDIAWIKI).join("maintenance/install.php"))
        .args([
            "--dbtype",
            "sqlite",
            "--dbname",
            "wiki",
            "--lang",
            "en",
            "--scriptpath",
            "",
        ])
        .args([
            "--server",
            url,
            "--pass",
            "correct horse battery",
            "--skins",
            "Vector",
        ])
        .arg(format!("--dbpath={}/data", state.display()))
        .arg(format!("--confpath={}", state.display()))
        .args(["Elephants", "Ada"])
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert!(
        output.status.success() && state.join("LocalSettings.php").exists(),
        "MediaWiki's installer: {}\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    // The pool's user may be another one.
    open_to_all(&state.join("data"));
    open_to_all(&state.join("LocalSettings.php"));
}

fn api(browser: &mut Browser, action: &str, fields: &[(&str, &str)]) -> Value {
    let fields = [&[("action", action), ("format", "json")], fields].concat();
    browser.form("/api.php", &fields).expect(200).json()
}

fn ask_token(browser: &mut Browser, kind: &str) -> String {
    let answer = api(browser, "query", &[("meta", "tokens"), ("type", kind)]);
    let token = answer["query"]["tokens"][format!("{kind}token")].as_str();
    token
        .unwrap_or_else(|| panic!("no token: {answer}"))
        .to_owned()
}
