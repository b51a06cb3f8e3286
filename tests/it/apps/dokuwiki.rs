//! DokuWiki, which keeps everything in files.

use std::path::Path;
use std::time::Duration;

use super::{content, expect_no_errors, follow, with_opcache, writable};
use crate::support::front::{Front, Kind};
use crate::support::http::{Browser, Page, escape};
use crate::support::request::Part;
use crate::support::server::write;
use crate::support::{Server, Setup, eventually};

const DOKUWIKI: &str = "/usr/share/dokuwiki";

fn start() -> (Server, Front) {
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
        "attic",
        "cache",
        "index",
        "locks",
        "log",
        "media",
        "media_attic",
        "media_meta",
        "meta",
        "pages",
        "tmp",
    ] {
        writable(&data.join(name));
    }
    let front = Front::start(Kind::Nginx, Path::new(DOKUWIKI), &server.address);
    (server, front)
}

/// A new visitor, logged in.
fn author(front: &Front) -> Browser {
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
    assert!(
        page.text().contains("Logged in as"),
        "not logged in: {page:?}"
    );
    browser
}

fn save(browser: &mut Browser, id: &str, text: &str) -> Page {
    let form = browser
        .get(&format!("/doku.php?id={id}&do=edit"))
        .expect(200);
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
fn pages_are_created_edited_and_found() {
    let (server, front) = start();
    let mut browser = author(&front);

    save(
        &mut browser,
        "animals:elephant",
        "====== Elephant ======\n\nIt carries a **howdah**.\n",
    )
    .expect_text("It carries a <strong>howdah</strong>.");
    // A revision is as old as the seconds of its time say.
    std::thread::sleep(Duration::from_millis(1100));
    save(
        &mut browser,
        "animals:elephant",
        "====== Elephant ======\n\nIt carries a **howdah**, and remembers périphrases.\n",
    )
    .expect_text("and remembers périphrases.");

    let revisions = browser
        .get("/doku.php?id=animals:elephant&do=revisions")
        .expect(200)
        .text();
    assert!(
        revisions.matches("by a test").count() >= 2,
        "expected two revisions: {revisions}"
    );

    // What every page has the browser fetch: here the index for the search is written.
    let pixel = browser
        .get("/lib/exe/taskrunner.php?id=animals:elephant")
        .expect(200);
    assert!(
        pixel.body.starts_with(b"GIF89a"),
        "expected a picture: {pixel:?}"
    );
    eventually("the page is found", || {
        let page = browser
            .get(&format!("/doku.php?do=search&q={}", escape("périphrases")))
            .expect(200);
        page.text().contains("animals:elephant").then_some(())
    });
    // Without an account the page is there, but no form to change it.
    let page = front
        .browser()
        .get("/doku.php?id=animals:elephant&do=edit")
        .expect(200)
        .text();
    assert!(
        !page.contains("name=\"do[save]\""),
        "anybody may edit: {page}"
    );
    expect_no_errors(&server);
}

#[test]
fn an_uploaded_file_comes_back_byte_for_byte() {
    let (server, front) = start();
    let mut browser = author(&front);
    let content = content();

    let form = browser
        .get("/lib/exe/mediamanager.php?ns=animals")
        .expect(200);
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

    let file = browser
        .get("/lib/exe/fetch.php?media=animals:herd.zip")
        .expect(200);
    assert!(
        file.body == content,
        "the file has changed on the way: {file:?}"
    );
    let part = browser.send(
        "GET",
        "/lib/exe/fetch.php?media=animals:herd.zip",
        &[("Range", "bytes=1000000-1000999")],
        b"",
    );
    assert!(
        part.expect(206).body == content[1_000_000..1_001_000],
        "these are other bytes"
    );
    expect_no_errors(&server);
}
