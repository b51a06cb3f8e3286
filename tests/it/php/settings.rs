//! php.ini and all that overrides it.

use super::{SERVER, run};
use crate::support::Setup;
use crate::support::processes::account;

const SHOW: &str = "echo ini_get('precision'), ' ', ini_get('memory_limit');";

#[test]
fn the_pool_sets_values_and_flags() {
    let server = Setup::new()
        .pool(
            "php_value[precision] = 7\n\
             php_flag[assert.exception] = off\n\
             php_admin_value[memory_limit] = 99M\n\
             php_admin_flag[allow_url_fopen] = off",
        )
        .start();
    server
        .run("echo json_encode(array_map('ini_get', ['precision', 'assert.exception', 'memory_limit', 'allow_url_fopen']));")
        .send()
        .expect_text(r#"["7","0","99M","0"]"#);
    // Scripts may change what is not the administrator's; and the next request has the pool's values again.
    for _ in 0..5 {
        server
            .run("echo json_encode([ini_set('precision', '9'), ini_get('precision'), ini_set('memory_limit', '98M'), ini_get('memory_limit')]);")
            .send()
            .expect_text(r#"["7","9",false,"99M"]"#);
    }
}

#[test]
fn settings_that_only_php_ini_may_have_can_be_the_pools() {
    let server = Setup::new()
        .pool("php_admin_value[disable_functions] = exec,system\nphp_admin_value[upload_max_filesize] = 3M")
        .start();
    server
        .run("echo ini_get('upload_max_filesize'), json_encode([function_exists('exec'), is_callable('system')]);")
        .send()
        .expect_text("3M[false,false]");
}

#[test]
fn open_basedir_of_the_pool_holds() {
    let server = Setup::new()
        .pool("php_admin_value[open_basedir] = {root}:{state}")
        .start();
    let response = server
        .run("var_dump(@file_get_contents('/etc/passwd'), is_string(file_get_contents(__FILE__)));")
        .send();
    response.expect_text("bool(false)\nbool(true)\n");
}

#[test]
fn the_web_server_may_set_values_for_one_request() {
    let server = Setup::new()
        .children(1)
        .pool("php_value[precision] = 7")
        .start();
    let show = server.run(SHOW);
    let limit = show.send().text().split(' ').nth(1).unwrap().to_owned();
    show.clone()
        .param("PHP_VALUE", "precision = 5\nmemory_limit = 77M")
        .send()
        .expect_text("5 77M");
    // The next request of the same interpreter has nothing of it.
    show.send().expect_text(&format!("7 {limit}"));
    show.clone()
        .param("PHP_ADMIN_VALUE", "memory_limit=66M")
        .send()
        .expect_text("7 66M");
    show.send().expect_text(&format!("7 {limit}"));
    server
        .run("echo json_encode([ini_set('memory_limit', '55M'), ini_get('memory_limit')]);")
        .param("PHP_ADMIN_VALUE", "memory_limit=66M")
        .send()
        .expect_text(r#"[false,"66M"]"#);
    server
        .run("echo json_encode([ini_set('memory_limit', '55M'), ini_get('memory_limit')]);")
        .send()
        .expect_text(&format!(r#"["{limit}","55M"]"#));
}

#[test]
fn the_web_server_may_prepend_a_file_for_one_request() {
    let server = Setup::new().children(1).start();
    let file = server.file("prepended.php", "<?php echo 'prepended ';");
    let script = server.run("echo 'script';");
    script
        .clone()
        .param(
            "PHP_VALUE",
            format!("auto_prepend_file = {}", file.display()),
        )
        .send()
        .expect_text("prepended script");
    script.send().expect_text("script");
}

#[test]
fn the_pool_may_prepend_and_append_files() {
    let server = Setup::new()
        .file("first.inc", "<?php echo 'first ';")
        .file("last.inc", "<?php echo ' last';")
        .pool("php_value[auto_prepend_file] = {root}/first.inc\nphp_value[auto_append_file] = {root}/last.inc")
        .start();
    server
        .run("echo 'script';")
        .send()
        .expect_text("first script last");
    server
        .run("echo 'script'; exit;")
        .send()
        .expect_text("first script");
}

#[test]
fn user_ini_files_hold_for_their_directory_and_below() {
    let server = Setup::new()
        .children(1)
        .pool("php_admin_value[memory_limit] = 99M")
        .file("site/.user.ini", "precision = 6\nmemory_limit = 1M\n")
        .file("site/below/.user.ini", "precision = 5\n")
        .file("site/show.php", format!("<?php {SHOW}"))
        .file("site/below/show.php", format!("<?php {SHOW}"))
        .file("site/below/further/show.php", format!("<?php {SHOW}"))
        .file("other/show.php", format!("<?php {SHOW}"))
        .start();
    for _ in 0..2 {
        server.get("/site/show.php").send().expect_text("6 99M");
        server
            .get("/site/below/show.php")
            .send()
            .expect_text("5 99M");
        server
            .get("/site/below/further/show.php")
            .send()
            .expect_text("5 99M");
        server.get("/other/show.php").send().expect_text("14 99M");
    }
}

#[test]
fn user_ini_files_of_directories_that_were_missing_are_found() {
    let server = Setup::new().children(1).start();
    for _ in 0..2 {
        assert_eq!(server.get("/late/show.php").send().status, 404);
    }
    server.file("late/.user.ini", "precision = 6\n");
    server.file("late/show.php", format!("<?php {SHOW}"));
    let late = server.get("/late/show.php").send().text();
    assert!(late.starts_with("6 "), "{late}");
}

#[test]
fn user_ini_files_hold_in_any_number_of_directories() {
    let server = Setup::new()
        .children(1)
        .file("site/.user.ini", "precision = 6\n")
        .file("site/show.php", "<?php echo ini_get('precision');")
        .start();
    let mut client = server.connect();
    // The same one by more names than an interpreter keeps.
    for number in 0..1_300 {
        let name: String = (0..11)
            .map(|bit| if number >> bit & 1 == 1 { "././" } else { "./" })
            .collect();
        let request = server.get(&format!("/site/{name}show.php")).keep();
        client.request(&request).expect_text("6");
    }
}

#[test]
fn the_last_one_of_two_parameters_counts() {
    let server = Setup::new()
        .children(1)
        .file(".user.ini", "precision = 6\n")
        .file(
            "site/show.php",
            "<?php echo ini_get('precision'), ' ', ini_get('user_agent'), ' ', basename($_SERVER['DOCUMENT_ROOT']), ' ', basename(getenv('DOCUMENT_ROOT'));",
        )
        .start();
    let request = server.get("/site/show.php");
    request.send().expect_text("6  root root");
    // As nginx sends them where DOCUMENT_ROOT is set after an include that sets it, too.
    let site = server.root().join("site");
    let request = request.another_param("DOCUMENT_ROOT", site.to_str().unwrap());
    request.send().expect_text("14  site site");
    request
        .another_param("PHP_VALUE", "precision = 5\nuser_agent = first")
        .another_param("PHP_VALUE", "precision = 4")
        .send()
        .expect_text("4  site site");
}

#[test]
fn user_ini_files_above_the_document_root_are_not_read() {
    let server = Setup::new()
        .file("site/.user.ini", "precision = 6\n")
        .file("site/public/show.php", format!("<?php {SHOW}"))
        .start();
    let request = server.get("/site/public/show.php").param(
        "DOCUMENT_ROOT",
        server.root().join("site/public").to_str().unwrap(),
    );
    assert!(
        request.send().text().starts_with("14 "),
        "{:?}",
        request.send()
    );
}

#[test]
fn user_ini_files_may_have_another_name_or_none() {
    let server = Setup::new()
        .args(&["-d", "user_ini.filename=.settings.ini"])
        .file(".settings.ini", "precision = 6\n")
        .file(".user.ini", "precision = 5\n")
        .start();
    assert!(server.run(SHOW).send().text().starts_with("6 "));
    let server = Setup::new()
        .args(&["-d", "user_ini.filename="])
        .file(".user.ini", "precision = 5\n")
        .start();
    assert!(server.run(SHOW).send().text().starts_with("14 "));
}

#[test]
fn flags_define_settings() {
    let server = Setup::new()
        .args(&[
            "-d",
            "precision=9",
            "-d",
            "user_agent=two words",
            "-d",
            "assert.exception",
        ])
        .start();
    server
        .run("echo json_encode(array_map('ini_get', ['precision', 'user_agent', 'assert.exception']));")
        .send()
        .expect_text(r#"["9","two words","1"]"#);
}

#[test]
fn another_php_ini_may_be_read_or_none() {
    let ini = "precision = 8\nuser_agent = \"from the file\"\n";
    let setup = Setup::new().file("php.ini", ini);
    let path = setup.dir().join("root/php.ini");
    let server = setup.args(&["-c", "{root}/php.ini"]).start();
    server
        .run("echo ini_get('precision'), ini_get('user_agent'), php_ini_loaded_file();")
        .send()
        .expect_text(&format!("8from the file{}", path.display()));
    // A directory will do, too.
    let setup = Setup::new().file("php.ini", ini);
    let server = setup.args(&["-c", "{root}"]).start();
    server
        .run("echo ini_get('precision');")
        .send()
        .expect_text("8");
    let server = Setup::new().args(&["-n"]).start();
    server
        .run("var_dump(php_ini_loaded_file(), php_ini_scanned_files());")
        .send()
        .expect_text("bool(false)\nbool(false)\n");
}

#[test]
fn settings_of_a_script_end_with_it() {
    let set = run(
        "ini_set('precision', '3'); ini_set('memory_limit', '77M'); date_default_timezone_set('Asia/Tokyo'); echo 'set';",
    );
    for _ in 0..8 {
        set.send().expect_text("set");
    }
    for _ in 0..8 {
        run("echo ini_get('precision'), ini_get('memory_limit'), date_default_timezone_get();")
            .send()
            .expect_text("14256MUTC");
    }
}

#[test]
fn php_runs_as_the_account_of_the_pool() {
    let Some(account) = account() else { return };
    SERVER
        .run("echo posix_getpwuid(posix_geteuid())['name'], ' ', $_SERVER['USER'], ' ', get_current_user();")
        .send()
        .expect_text(&format!("{account} {account} root"));
}
