//! Applications that others wrote, behind web servers that others wrote.
//!
//! They come from the distribution, and stay where it puts them: what they write goes to the test's directory. The web
//! servers' configurations are those in `examples/`.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};

use super::support::front::{Front, Kind, Relay};
use super::support::http::{Browser, Page, escape};
use super::support::processes::account;
use super::support::request::Part;
use super::support::server::write;
use super::support::{Server, Setup, eventually};

// --- DokuWiki ----------------------------------------------------------------------------------

const DOKUWIKI: &str = "/usr/share/dokuwiki";

fn dokuwiki() -> (Server, Front) {
    // The distribution's file for everything that is not set here is in /etc.
    let server = with_opcache(Setup::new())
        .pool("php_value[auto_prepend_file] = {dir}/prepend.php")
        .start();
    let conf = server.dir().join("conf");
    let data = server.state().join("data");
    let prepend = format!("<?php define('DOKU_CONF', '{}/');", conf.display());
    write(&server.dir().join("prepend.php"), prepend);
    let local = format!(
        "<?php\n$conf['title'] = 'Elephants';\n$conf['useacl'] = 1;\n$conf['superuser'] = '@admin';\n\
         $conf['savedir'] = '{}';\n",
        data.display()
    );
    write(&conf.join("local.php"), local);
    // MD5, as DokuWiki still reads it, of: secret
    write(
        &conf.join("users.auth.php"),
        "ada:5ebe2294ecd0e0f08eab7690d2a6ee69:Ada:ada@example.org:admin,user\n",
    );
    write(&conf.join("acl.auth.php"), "*\t@ALL\t1\n*\t@user\t8\n");
    for name in [
        "attic", "cache", "index", "locks", "log", "media", "media_attic", "media_meta", "meta", "pages",
        "tmp",
    ] {
        writable(&data.join(name));
    }
    let front = Front::start(Kind::Nginx, Path::new(DOKUWIKI), &server.address);
    (server, front)
}

/// A new visitor, logged in.
fn dokuwiki_author(front: &Front) -> Browser {
    let mut browser = front.browser();
    let page = browser.get("/doku.php?id=start&do=login").expect(200);
    let fields = [
        ("sectok", &*page.field("sectok")),
        ("id", "start"),
        ("do", "login"),
        ("u", "ada"),
        ("p", "secret"),
    ];
    let page = browser.form("/doku.php?id=start", &fields);
    let page = follow(&mut browser, page);
    assert!(page.text().contains("Logged in as"), "not logged in: {page:?}");
    browser
}

fn dokuwiki_save(browser: &mut Browser, id: &str, text: &str) -> Page {
    let form = browser.get(&format!("/doku.php?id={id}&do=edit")).expect(200);
    let fields = [
        ("sectok", &*form.field("sectok")),
        ("changecheck", &*form.field("changecheck")),
        ("date", &*form.field("date")),
        ("rev", "0"),
        ("target", "section"),
        ("id", id),
        ("wikitext", text),
        ("summary", "by a test"),
        ("do[save]", "1"),
    ];
    let page = browser.form(&format!("/doku.php?id={id}"), &fields);
    follow(browser, page)
}

#[test]
fn dokuwiki_pages_are_created_edited_and_found() {
    let (server, front) = dokuwiki();
    let mut browser = dokuwiki_author(&front);

    dokuwiki_save(&mut browser, "animals:elephant", "====== Elephant ======\n\nIt carries a **howdah**.\n")
        .expect_text("It carries a <strong>howdah</strong>.");
    // A revision is as old as the seconds of its time say.
    std::thread::sleep(Duration::from_millis(1100));
    dokuwiki_save(
        &mut browser,
        "animals:elephant",
        "====== Elephant ======\n\nIt carries a **howdah**, and remembers périphrases.\n",
    )
    .expect_text("and remembers périphrases.");

    let revisions = browser.get("/doku.php?id=animals:elephant&do=revisions").expect(200).text();
    assert!(revisions.matches("by a test").count() >= 2, "expected two revisions: {revisions}");

    // What every page has the browser fetch: here the index for the search is written.
    let pixel = browser.get("/lib/exe/taskrunner.php?id=animals:elephant").expect(200);
    assert!(pixel.body.starts_with(b"GIF89a"), "expected a picture: {pixel:?}");
    eventually("the page is found", || {
        let page = browser.get(&format!("/doku.php?do=search&q={}", escape("périphrases"))).expect(200);
        page.text().contains("animals:elephant").then_some(())
    });
    // Without an account the page is there, but no form to change it.
    let page = front.browser().get("/doku.php?id=animals:elephant&do=edit").expect(200).text();
    assert!(!page.contains("name=\"do[save]\""), "anybody may edit: {page}");
    expect_no_errors(&server);
}

#[test]
fn dokuwiki_returns_an_uploaded_file_byte_for_byte() {
    let (server, front) = dokuwiki();
    let mut browser = dokuwiki_author(&front);
    let content = content();

    let form = browser.get("/lib/exe/mediamanager.php?ns=animals").expect(200);
    let page = browser.upload(
        "/lib/exe/mediamanager.php",
        &[
            Part::field("sectok", &form.field("sectok")),
            Part::field("ns", "animals"),
            Part::field("mediaid", "herd.zip"),
            Part::file("upload", "herd.zip", "application/zip", &content),
        ],
    );
    follow(&mut browser, page).expect_text("Upload successful");

    let file = browser.get("/lib/exe/fetch.php?media=animals:herd.zip").expect(200);
    assert!(file.body == content, "the file has changed on the way: {file:?}");
    let part = browser.send(
        "GET",
        "/lib/exe/fetch.php?media=animals:herd.zip",
        &[("Range", "bytes=1000000-1000999")],
        b"",
    );
    assert!(part.expect(206).body == content[1_000_000..1_001_000], "these are other bytes");
    expect_no_errors(&server);
}

// --- MediaWiki ---------------------------------------------------------------------------------

const MEDIAWIKI: &str = "/usr/share/mediawiki";

#[test]
fn mediawiki_is_installed_edited_and_read() {
    let server = with_opcache(Setup::new())
        .pool("env[MW_CONFIG_FILE] = {state}/LocalSettings.php")
        .pool("php_value[memory_limit] = 256M")
        .start();
    let front = Front::start(Kind::Nginx, Path::new(MEDIAWIKI), &server.address);
    mediawiki_install(&server, &front.url());
    let mut browser = front.browser();

    let token = mediawiki_token(&mut browser, "login");
    let answer = mediawiki_api(
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

    let token = mediawiki_token(&mut browser, "csrf");
    for (text, version) in [("It carries a '''howdah'''.", 1), ("It '''carries''' a ''howdah''.", 2)] {
        let fields = [("title", "Elephant"), ("text", text), ("token", &token)];
        let answer = mediawiki_api(&mut browser, "edit", &fields);
        assert_eq!(answer["edit"]["result"], "Success", "version {version}: {answer}");
    }

    // As a visitor reads it, by two sorts of addresses.
    for uri in ["/index.php?title=Elephant", "/index.php/Elephant"] {
        front.browser().get(uri).expect_text("It <b>carries</b> a <i>howdah</i>.");
    }
    browser.get("/index.php?title=Elephant&action=history").expect_text("Ada");
    let page = browser.get("/rest.php/v1/page/Elephant").expect(200).json();
    assert_eq!(page["source"], "It '''carries''' a ''howdah''.");
    browser
        .get("/load.php?lang=en&modules=startup&only=scripts&raw=1&skin=vector")
        .expect_text("mw.loader");
    expect_no_errors(&server);
}

fn mediawiki_install(server: &Server, url: &str) {
    let mut command = Command::new(php());
    command
        .arg(Path::new(MEDIAWIKI).join("maintenance/install.php"))
        .args(["--dbtype", "sqlite", "--dbname", "wiki", "--lang", "en", "--scriptpath", ""])
        .args(["--server", url, "--pass", "correct horse battery", "--skins", "Vector"])
        .arg(format!("--dbpath={}/data", server.state().display()))
        .arg(format!("--confpath={}", server.state().display()))
        .args(["Elephants", "Ada"])
        .stdin(Stdio::null());
    if let Some(name) = account() {
        let user = nix::unistd::User::from_name(name).unwrap().unwrap();
        command.uid(user.uid.as_raw()).gid(user.gid.as_raw());
    }
    let output = command.output().unwrap();
    assert!(
        output.status.success() && server.state().join("LocalSettings.php").exists(),
        "MediaWiki's installer: {}\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}

fn mediawiki_api(browser: &mut Browser, action: &str, fields: &[(&str, &str)]) -> Value {
    let fields = [&[("action", action), ("format", "json")], fields].concat();
    browser.form("/api.php", &fields).expect(200).json()
}

fn mediawiki_token(browser: &mut Browser, kind: &str) -> String {
    let answer = mediawiki_api(browser, "query", &[("meta", "tokens"), ("type", kind)]);
    let token = answer["query"]["tokens"][format!("{kind}token")].as_str();
    token.unwrap_or_else(|| panic!("no token: {answer}")).to_owned()
}

// --- Symfony -----------------------------------------------------------------------------------

/// The application in `tests/apps/symfony`.
fn symfony() -> (Server, Front) {
    let server = with_opcache(Setup::new())
        .pool("env[APP_CACHE_DIR] = {state}/cache\nenv[APP_LOG_DIR] = {state}\nenv[APP_DATA_DIR] = {state}/data")
        .start();
    copy(&project().join("tests/apps/symfony"), &server.root());
    server.file("download.bin", content());
    writable(&server.state().join("data"));
    let front = Front::start(Kind::Nginx, &server.root().join("public"), &server.address);
    (server, front)
}

#[test]
fn symfony_answers_with_json_and_a_cookie() {
    let (server, front) = symfony();
    let mut browser = front.browser();
    let uri = "/greetings/J%C3%B6rg%20%26%20Co?a[]=1&a[]=2";
    let headers = [("Accept", "application/json")];
    for cookie in [Value::Null, json!("Jörg & Co")] {
        let page = browser.send("GET", uri, &headers, b"").expect(200);
        assert_eq!(page.header("Content-Type"), Some("application/json"));
        assert_eq!(
            page.json(),
            json!({
                "greeting": "Hello, Jörg & Co!",
                "query": {"a": ["1", "2"]},
                "path": "/greetings/J%C3%B6rg%20%26%20Co",
                "accepts": ["application/json"],
                "cookie": cookie,
            })
        );
    }
    browser.get("/nothing/here").expect(404);
    browser.form("/greetings/Ada", &[]).expect(405);
    expect_no_errors(&server);
}

#[test]
fn symfony_streams_a_response_in_pieces() {
    let (server, front) = symfony();
    let page = front.browser().get("/stream").expect(200);
    assert_eq!(page.text(), "piece 1\npiece 2\npiece 3\npiece 4\n");
    expect_pieces(&page, 4, Duration::from_millis(200));
    expect_no_errors(&server);
}

#[test]
fn symfony_sends_parts_of_a_file() {
    let (server, front) = symfony();
    let mut browser = front.browser();
    let content = content();
    let all = browser.get("/download").expect(200);
    assert!(all.body == content, "the file has changed on the way: {all:?}");
    assert_eq!(
        all.header("Content-Disposition"),
        Some("attachment; filename=naive.bin; filename*=utf-8''na%C3%AFve.bin")
    );
    let length = content.len();
    for (range, from, to) in [
        ("bytes=0-0", 0, 0),
        ("bytes=700000-799999", 700_000, 799_999),
        ("bytes=1499990-", 1_499_990, length - 1),
        ("bytes=-5", length - 5, length - 1),
    ] {
        let part = browser.send("GET", "/download", &[("Range", range)], b"").expect(206);
        assert!(part.body == content[from..=to], "{range}: these are other bytes: {part:?}");
        let header = format!("bytes {from}-{to}/{length}");
        assert_eq!(part.header("Content-Range"), Some(&*header), "{range}");
    }
    browser.send("GET", "/download", &[("Range", "bytes=2000000-2000009")], b"").expect(416);
    let modified = all.header("Last-Modified").unwrap();
    let page = browser.send("GET", "/download", &[("If-Modified-Since", modified)], b"");
    assert!(page.expect(304).body.is_empty());
    let head = browser.send("HEAD", "/download", &[], b"").expect(200);
    assert_eq!(head.header("Content-Length"), Some(&*length.to_string()));
    expect_no_errors(&server);
}

#[test]
fn symfony_keeps_sessions_of_visitors_apart() {
    let (server, front) = symfony();
    let mut browsers = [front.browser(), front.browser()];
    for visits in 1..=5 {
        for browser in &mut browsers {
            let page = browser.get("/visits").expect(200);
            assert_eq!(page.json(), json!({"visits": visits}));
        }
    }
    expect_no_errors(&server);
}

#[test]
fn symfony_receives_the_body_of_a_put() {
    let (server, front) = symfony();
    let mut browser = front.browser();
    let kind = [("Content-Type", "application/octet-stream")];
    let page = browser.send("PUT", "/items/large", &kind, &content()).expect(201);
    let expected = json!({
        "id": "large", "type": "application/octet-stream", "length": 1_500_000,
        "sha256": CONTENT_SHA256, "form": [],
    });
    assert_eq!(page.json(), expected);

    let kind = [("Content-Type", "application/x-www-form-urlencoded")];
    let page = browser.send("PUT", "/items/form", &kind, b"colour=grey&legs=4").expect(201);
    assert_eq!(page.json()["form"], json!({"colour": "grey", "legs": "4"}));
    expect_no_errors(&server);
}

#[test]
fn symfony_stores_an_upload() {
    let (server, front) = symfony();
    let mut browser = front.browser();
    let page = browser.upload(
        "/upload",
        &[
            Part::field("title", "Ein Gehöft"),
            Part::file("file", "höfe & co.bin", "application/octet-stream", &content()),
        ],
    );
    let expected = json!({
        "title": "Ein Gehöft", "name": "höfe & co.bin", "length": 1_500_000, "sha256": CONTENT_SHA256,
    });
    assert_eq!(page.expect(200).json(), expected);
    browser.upload("/upload", &[Part::field("title", "no file")]).expect(400);
    expect_no_errors(&server);
}

#[test]
fn symfony_goes_on_working_when_the_visitor_has_the_answer() {
    let (server, front) = symfony();
    let mut browser = front.browser();
    let done = server.state().join("data/report");
    let page = browser.form("/later/report", &[]).expect(202);
    assert_eq!(page.json(), json!({"accepted": "report"}));
    assert!(!done.exists(), "the answer came only after the work that was to follow it");
    eventually("the work is done", || done.exists().then_some(()));
    expect_no_errors(&server);
}

#[test]
fn symfony_answers_500_where_its_code_throws() {
    let (server, front) = symfony();
    let mut browser = front.browser();
    browser.get("/broken").expect(500);
    server.expect_log(&["This part is broken."]);
    browser.get("/greetings/Ada").expect(200);
}

// --- Web servers -------------------------------------------------------------------------------

#[test]
fn nginx_serves_the_example() {
    serves_the_example(Kind::Nginx);
}

#[test]
fn apache_serves_the_example() {
    serves_the_example(Kind::Apache);
}

#[test]
fn caddy_serves_the_example() {
    serves_the_example(Kind::Caddy);
}

#[test]
fn lighttpd_serves_the_example() {
    serves_the_example(Kind::Lighttpd);
}

#[test]
fn haproxy_serves_the_example() {
    serves_the_example(Kind::Haproxy);
}

#[track_caller]
fn serves_the_example(kind: Kind) {
    let server = with_opcache(Setup::new())
        .file("style.css", "body { color: grey }")
        .file(".env", "SECRET")
        .file(".well-known/about.txt", "known")
        .file("info.php", INFO)
        .file("stream.php", STREAM)
        .start();
    copy(&project().join("examples/hello"), &server.root());
    let relay = match kind {
        Kind::Haproxy => Relay::tcp(&server.address),
        _ => Relay::unix(&server.address),
    };
    let front = Front::start(kind, &server.root(), relay.address());
    let mut browser = front.browser();

    // The page, and a session.
    browser.get("/").expect_text("Hello!").expect_text("<dd>fpm-fcgi</dd>");
    for visits in 2..=4 {
        browser.get("/").expect_text(&format!("Pages you have seen: <strong>{visits}</strong>"));
    }
    front.browser().get("/").expect_text("Pages you have seen: <strong>1</strong>");

    // Its forms.
    browser.form("/", &[("name", "Ada <3")]).expect_text("<h1>Hello, Ada &lt;3!</h1>");
    browser
        .upload("/index.php", &[Part::file("file", "<herd>.bin", "application/octet-stream", &content())])
        .expect_text(&format!("&lt;herd&gt;.bin: 1,500,000 bytes, SHA-256 {CONTENT_SHA256}"));

    // What PHP is told.
    browser.get("/some/page?x=1").expect_text("<dd>GET /some/page?x=1</dd>");
    let page = browser.send("GET", "/info.php/a/b%20c?q=1&r", &[("Authorization", "Bearer t")], b"");
    let root = fs::canonicalize(server.root()).unwrap();
    assert_eq!(
        page.expect(200).json(),
        json!({
            "SCRIPT_NAME": "/info.php", "SCRIPT_FILENAME": root.join("info.php"), "DOCUMENT_ROOT": root,
            "PATH_INFO": "/a/b c", "REQUEST_URI": "/info.php/a/b%20c?q=1&r", "QUERY_STRING": "q=1&r",
            "PHP_SELF": "/info.php/a/b c", "HTTP_AUTHORIZATION": "Bearer t",
        })
    );

    // Files, and what is not for everybody. HAProxy sends none: there all of it is PHP's.
    if kind != Kind::Haproxy {
        browser.get("/style.css").expect_text("body { color: grey }");
        browser.get("/.well-known/about.txt").expect_text("known");
        for uri in ["/.env", "/%2eenv"] {
            let page = browser.get(uri);
            assert!(matches!(page.status, 403 | 404), "{uri} is not hidden: {page:?}");
        }
    }

    // What is flushed comes at once. Caddy collects it.
    let page = browser.get("/stream.php").expect(200);
    assert_eq!(page.text(), "one, two, three");
    if kind != Kind::Caddy {
        expect_pieces(&page, 3, Duration::from_millis(150));
    }

    // Connections to howdah are kept by those that can.
    let before = relay.connections();
    for _ in 0..20 {
        browser.get("/info.php").expect(200);
    }
    let connections = relay.connections() - before;
    match kind {
        Kind::Caddy | Kind::Lighttpd => assert_eq!(connections, 20),
        Kind::Nginx | Kind::Apache | Kind::Haproxy => {
            assert!(connections < 5, "{connections} connections for 20 requests, one after the other");
        }
    }
    assert_eq!(browser.connections(), 1, "a browser's connection was not kept");
    expect_no_errors(&server);
}

const INFO: &str = "<?php
    $names = ['SCRIPT_NAME', 'SCRIPT_FILENAME', 'DOCUMENT_ROOT', 'PATH_INFO', 'REQUEST_URI', 'QUERY_STRING', 'PHP_SELF',
        'HTTP_AUTHORIZATION'];
    header('Content-Type: application/json');
    echo json_encode(array_map(fn ($name) => $_SERVER[$name] ?? null, array_combine($names, $names)));";

const STREAM: &str = "<?php
    header('X-Accel-Buffering: no');
    while (ob_get_level() > 0) ob_end_clean();
    foreach (['one', ', two', ', three'] as $piece) {
        echo $piece;
        flush();
        usleep(300000);
    }";

// --- Helpers -----------------------------------------------------------------------------------

const CONTENT_SHA256: &str = "8d0a0228cd4fb98a6b21651e739b8a7d330d7cc73178fe692f78580be9c81b4a";

/// Something to upload.
fn content() -> Vec<u8> {
    (0..1_500_000_u64).map(|i| ((i * i / 7 + i) % 251) as u8).collect()
}

fn project() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The command line's PHP, of the build that is tested.
fn php() -> PathBuf {
    let config = std::env::var("PHP_CONFIG").unwrap_or_else(|_| "php-config".to_owned());
    let output = Command::new(&config).arg("--php-binary").output();
    let output = output.unwrap_or_else(|error| panic!("{config}: {error}"));
    String::from_utf8(output.stdout).unwrap().trim().into()
}

/// Distributions load opcache; a PHP that was built from source has to be told.
fn with_opcache(setup: Setup) -> Setup {
    let modules = Command::new(php()).arg("-m").output().unwrap().stdout;
    if String::from_utf8_lossy(&modules).contains("Zend OPcache") {
        setup
    } else {
        setup.args(&["-d", "zend_extension=opcache"])
    }
}

/// Makes a directory for PHP to write to.
fn writable(path: &Path) {
    fs::create_dir_all(path).unwrap();
    for path in [path, path.parent().unwrap()] {
        fs::set_permissions(path, Permissions::from_mode(0o777)).unwrap();
    }
}

fn copy(from: &Path, to: &Path) {
    for entry in fs::read_dir(from).unwrap_or_else(|error| panic!("{}: {error}", from.display())) {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &target);
        } else {
            write(&target, fs::read(entry.path()).unwrap());
        }
    }
}

/// Goes where a page sends its visitor, if it does.
fn follow(browser: &mut Browser, page: Page) -> Page {
    let Some(location) = page.header("Location") else {
        return page;
    };
    let path = location.strip_prefix("http://").map_or(location, |rest| {
        rest.find('/').map_or("/", |slash| &rest[slash..])
    });
    browser.get(path.split('#').next().unwrap_or_default())
}

/// The page came in pieces, each so much later than the one before.
#[track_caller]
fn expect_pieces(page: &Page, count: usize, apart: Duration) {
    let times: Vec<Duration> = page.pieces.iter().map(|(time, _)| *time).collect();
    let pauses = times.windows(2).filter(|pair| pair[1] - pair[0] >= apart).count();
    assert_eq!(pauses + 1, count, "expected {count} pieces {apart:?} apart, they came at {times:?}");
}

#[track_caller]
fn expect_no_errors(server: &Server) {
    let log = server.log();
    let errors: Vec<&str> = log
        .lines()
        .filter(|line| ["PHP Fatal", "SIG", "ERROR", "ALERT"].iter().any(|word| line.contains(word)))
        .collect();
    assert!(errors.is_empty(), "errors in the log: {errors:#?}");
}
