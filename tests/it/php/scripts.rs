//! Which file is run, and what it is told about its place.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt as _, symlink};

use serde_json::json;

use super::{SERVER, run};
use crate::support::processes::account;
use crate::support::{Request, Response, Server, Setup};

/// What PHP thinks of the path that it was given.
const PATHS: &str = "<?php echo json_encode(array_intersect_key($_SERVER, array_flip([
    'SCRIPT_FILENAME', 'SCRIPT_NAME', 'PATH_INFO', 'PHP_SELF', 'ORIG_PATH_INFO', 'ORIG_SCRIPT_NAME',
    'ORIG_SCRIPT_FILENAME', 'PATH_TRANSLATED'])), JSON_UNESCAPED_SLASHES);";

fn expect_not_found(response: &Response) {
    response.expect(404, "File not found.\n");
    assert_eq!(response.stderr, "Primary script unknown");
}

fn expect_denied(response: &Response) {
    response.expect(403, "Access denied.\n");
    assert!(
        response.stderr.contains("security.limit_extensions"),
        "{response:?}"
    );
}

/// `/paths.php` on a server of its own, as tests change files.
fn paths(server: &Server) -> Request {
    server.file("paths.php", PATHS);
    server.get("/paths.php")
}

#[test]
fn a_missing_script_is_not_found() {
    expect_not_found(&SERVER.get("/missing.php").send());
    expect_not_found(&SERVER.get("/missing/index.php").send());
    expect_not_found(&SERVER.get("/missing.php/info").send());
    SERVER.expect_log(&["ERROR", "Primary script unknown"]);
}

#[test]
fn a_directory_is_no_script() {
    SERVER.file("directory/file.php", "");
    let response = SERVER.get("/directory").send();
    assert!(matches!(response.status, 403 | 404), "{response:?}");
    let response = SERVER.get("/directory/").send();
    assert!(matches!(response.status, 403 | 404), "{response:?}");
}

#[test]
fn only_the_extensions_of_the_pool_are_run() {
    SERVER.file("script.txt", "<?php echo 'ran';");
    SERVER.file("script.PHP", "<?php echo 'ran';");
    SERVER.file("script.php.jpg", "<?php echo 'ran';");
    for uri in ["/script.txt", "/script.PHP", "/script.php.jpg"] {
        expect_denied(&SERVER.get(uri).send());
    }
    SERVER.expect_log(&["ERROR", "script.txt", "security.limit_extensions"]);
}

#[test]
fn an_uploaded_picture_is_not_run_by_a_path_behind_it() {
    SERVER.file("picture.jpg", "<?php echo 'ran';");
    let response = SERVER.get("/picture.jpg/x.php").send();
    expect_denied(&response);
}

#[test]
fn the_pool_may_allow_other_extensions() {
    let server = Setup::new()
        .pool("security.limit_extensions = .php .html")
        .file("page.html", "<?php echo 'ran';")
        .file("page.phar", "<?php echo 'ran';")
        .start();
    server.get("/page.html").send().expect_text("ran");
    expect_denied(&server.get("/page.phar").send());
}

#[test]
fn path_info_from_the_web_server_is_kept() {
    let server = Setup::new().start();
    let paths = paths(&server)
        .param("PATH_INFO", "/info/more")
        .send()
        .json();
    assert_eq!(
        paths,
        json!({
            "SCRIPT_FILENAME": server.root().join("paths.php").to_str().unwrap(),
            "SCRIPT_NAME": "/paths.php",
            "PATH_INFO": "/info/more",
            "PHP_SELF": "/paths.php/info/more",
        })
    );
}

#[test]
fn path_info_is_split_off_the_script() {
    let server = Setup::new().start();
    paths(&server);
    let root = server.root();
    let root = root.to_str().unwrap();
    // The CGI way: PATH_INFO is the whole path.
    let split = server
        .get("/paths.php/info/more")
        .param("PATH_INFO", "/paths.php/info/more")
        .send()
        .json();
    assert_eq!(
        split,
        json!({
            "SCRIPT_FILENAME": format!("{root}/paths.php"),
            "SCRIPT_NAME": "/paths.php",
            "PATH_INFO": "/info/more",
            "PATH_TRANSLATED": format!("{root}/info/more"),
            "PHP_SELF": "/paths.php/info/more",
            "ORIG_SCRIPT_FILENAME": format!("{root}/paths.php/info/more"),
            "ORIG_SCRIPT_NAME": "/paths.php/info/more",
            "ORIG_PATH_INFO": "/paths.php/info/more",
        })
    );
    // Where the web server says nothing of PATH_INFO, there is none.
    let none = server.get("/paths.php/info/more").send().json();
    assert_eq!(
        none,
        json!({
            "SCRIPT_FILENAME": format!("{root}/paths.php"),
            "SCRIPT_NAME": "/paths.php/info/more",
            "PATH_TRANSLATED": root,
            "PHP_SELF": "/paths.php/info/more",
            "ORIG_SCRIPT_FILENAME": format!("{root}/paths.php/info/more"),
        })
    );
}

#[test]
fn apache_says_where_it_sends_the_request() {
    let server = Setup::new().start();
    let request = paths(&server);
    let filename = request.text("SCRIPT_FILENAME");
    // With SetHandler.
    let set_handler = request
        .clone()
        .param(
            "SCRIPT_FILENAME",
            format!("proxy:fcgi://localhost:9000{filename}"),
        )
        .param("PATH_INFO", "/info")
        .send()
        .json();
    assert_eq!(
        set_handler,
        json!({
            "SCRIPT_FILENAME": filename,
            "SCRIPT_NAME": "/paths.php",
            "PATH_INFO": "/info",
            "PHP_SELF": "/paths.php/info",
        })
    );
    // With ProxyPassMatch.
    let root = server.root();
    let proxy_pass = server
        .get("/paths.php/info")
        .param(
            "SCRIPT_FILENAME",
            format!("proxy:fcgi://localhost:9000{filename}/info?a=b"),
        )
        .send()
        .json();
    assert_eq!(
        proxy_pass,
        json!({
            "SCRIPT_FILENAME": filename,
            "SCRIPT_NAME": "/paths.php",
            "PATH_INFO": "/info",
            "PATH_TRANSLATED": root.join("info"),
            "PHP_SELF": "/paths.php/info",
            "ORIG_SCRIPT_FILENAME": format!("{filename}/info"),
            "ORIG_SCRIPT_NAME": "/paths.php/info",
        })
    );
}

#[test]
fn path_translated_stands_in_for_script_filename() {
    let server = Setup::new().start();
    let request = paths(&server);
    let filename = request.text("SCRIPT_FILENAME");
    let paths = request
        .without("SCRIPT_FILENAME")
        .param("PATH_TRANSLATED", &filename)
        .send()
        .json();
    assert_eq!(paths["SCRIPT_FILENAME"], filename);
    let nothing = server.run("echo 'ran';").without("SCRIPT_FILENAME").send();
    expect_not_found(&nothing);
}

#[test]
fn without_fix_pathinfo_the_web_server_is_believed() {
    let server = Setup::new()
        .pool("php_admin_value[cgi.fix_pathinfo] = 0")
        .args(&["-d", "cgi.fix_pathinfo=0"])
        .start();
    let paths = paths(&server).param("PATH_INFO", "/info").send().json();
    assert_eq!(paths["PATH_INFO"], "/info");
    assert_eq!(paths["SCRIPT_NAME"], "/paths.php");
    let response = server.get("/paths.php/info").send();
    assert!(matches!(response.status, 403 | 404), "{response:?}");
}

#[test]
fn names_of_scripts_are_bytes() {
    let server = Setup::new().start();
    // Lower case has another length than upper case, bytes that are no UTF-8, a character that folds to an ASCII letter.
    for name in [
        "\u{23a}\u{23a}.php",
        "\u{212a}elvin.php",
        "a b%20c+d.php",
        "x.php.php",
    ] {
        server.file(name, PATHS);
        let split = server
            .get(&format!("/{name}/info"))
            .param("PATH_INFO", format!("/{name}/info"))
            .send()
            .json();
        assert_eq!(split["SCRIPT_NAME"], format!("/{name}"));
        assert_eq!(split["PATH_INFO"], "/info");
    }
    server.file("shell.ph\u{ff50}", "<?php echo 'ran';");
    server.file("shell.pHp", "<?php echo 'ran';");
    expect_denied(&server.get("/shell.ph\u{ff50}").send());
    expect_denied(&server.get("/shell.pHp").send());
}

#[test]
fn a_path_with_dots_is_not_found() {
    SERVER.file("there/script.php", "<?php echo 'ran';");
    let response = SERVER.get("/there/../there/script.php").send();
    assert_eq!(response.status, 404, "{response:?}");
}

#[test]
fn a_script_may_be_a_symbolic_link() {
    let target = SERVER.file("target/real.php", "<?php echo basename(__FILE__);");
    symlink(target, SERVER.root().join("link.php")).unwrap();
    SERVER.get("/link.php").send().expect_text("real.php");
}

#[test]
fn a_script_that_may_not_be_read_is_denied() {
    if account().is_none() {
        return; // Only root can make a file that another account may not read.
    }
    let path = SERVER.file("secret.php", "<?php echo 'ran';");
    fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
    let response = SERVER.get("/secret.php").send();
    response.expect(403, "Access denied.\n");
    assert!(
        response.stderr.contains("Unable to open primary script"),
        "{response:?}"
    );
    assert!(
        response.stderr.contains("Permission denied"),
        "{response:?}"
    );
}

#[test]
fn the_working_directory_is_the_scripts_own() {
    SERVER.file("deep/down/part.php", "<?php return 'part';");
    SERVER.file(
        "deep/down/script.php",
        "<?php echo getcwd(), ' ', include 'part.php', ' ', file_exists('part.php') ? 'there' : 'not there';",
    );
    let directory = SERVER.root().join("deep/down");
    SERVER
        .get("/deep/down/script.php")
        .send()
        .expect_text(&format!("{} part there", directory.display()));
}

#[test]
fn files_can_be_included() {
    SERVER.file(
        "lib/functions.php",
        "<?php function greet() { return __DIR__; }",
    );
    run(
        "require __DIR__ . '/lib/functions.php'; require_once __DIR__ . '/lib/functions.php';
         echo greet(), count(get_included_files());",
    )
    .send()
    .expect_text(&format!("{}/lib2", SERVER.root().display()));
}

#[test]
fn a_script_may_be_empty_or_have_no_php() {
    SERVER.file("empty.php", "");
    SERVER.file("plain.php", "just text\n");
    SERVER.get("/empty.php").send().expect_text("");
    SERVER.get("/plain.php").send().expect_text("just text\n");
}

#[test]
fn the_sapi_passes_for_php_fpms() {
    run("echo PHP_SAPI, ' ', php_sapi_name();")
        .send()
        .expect_text("fpm-fcgi fpm-fcgi");
    for function in [
        "fastcgi_finish_request",
        "getallheaders",
        "apache_request_headers",
    ] {
        run(&format!("var_dump(function_exists('{function}'));"))
            .send()
            .expect_text("bool(true)\n");
    }
    run("var_dump(defined('STDIN'), defined('STDOUT'));")
        .send()
        .expect_text("bool(false)\nbool(false)\n");
}

#[test]
fn phpinfo_is_complete() {
    let response = run("phpinfo();").send();
    let text = response.text();
    assert_eq!(response.status, 200);
    assert!(
        text.contains("<html") && text.contains("</html>"),
        "{response:?}"
    );
    assert!(text.contains("REQUEST_METHOD"), "no $_SERVER in phpinfo()");
}

#[test]
fn head_has_the_headers_and_no_body() {
    let response = run("header('X-Seen: yes'); echo 'a body'; header('X-Late: yes');")
        .method("HEAD")
        .send();
    response.expect_text("");
    assert_eq!(response.header("X-Seen"), "yes");
}
