//! The reference page, `docs/directives.md`.

use std::fmt::Write as _;

use super::table::{DIRECTIVES, Directive, Reads, Scope};

const HEAD: &str = "\
# Directives

<!-- Made from src/config/table.rs. Change it there, then run: HOWDAH_BLESS=1 cargo test reference_page -->

howdah reads php-fpm's configuration. This page lists every directive of php-fpm, and howdah's own, which are marked so.

Names of directives and sections may be written in upper or lower case. A section that appears again goes on where it
left off. `$pool` in a value is the pool's name; `${NAME}` is a variable of the environment, and `${NAME:-text}` is the
text where the variable is not set. A value that holds one of `=` `;` `|` `&` `^` `~` `!` `(` `)` goes between double quotes.
";

const NOT_YET: &str = "
## Not read yet

This version refuses a file that uses one of these directives of php-fpm, and names the line to remove.

| directive | section | what it is for |
|---|---|---|
";

/// The page: one entry for each directive of the table.
pub fn reference() -> String {
    let mut page = HEAD.to_owned();
    for (title, scope) in [
        ("Anywhere", Scope::Anywhere),
        ("In `[global]`", Scope::Global),
        ("In a pool's section", Scope::Pool),
    ] {
        let _ = write!(page, "\n## {title}\n");
        for row in read_rows().filter(|row| row.scope() == scope) {
            entry(&mut page, row);
        }
    }
    page.push_str(NOT_YET);
    for row in DIRECTIVES {
        if let Reads::NotYet { scope, .. } = row.reads {
            let section = if scope == Scope::Global {
                "`[global]`"
            } else {
                "pool"
            };
            let _ = writeln!(
                page,
                "| `{}` | {section} | {} |",
                row.name,
                row.doc.replace('|', "\\|")
            );
        }
    }
    page
}

fn read_rows() -> impl Iterator<Item = &'static Directive> {
    DIRECTIVES
        .iter()
        .filter(|row| !matches!(row.reads, Reads::NotYet { .. }))
}

fn entry(page: &mut String, row: &Directive) {
    let name = match row.takes_key() {
        true => format!("{}[NAME]", row.bare_name()),
        false => row.name.to_owned(),
    };
    let ours = if row.ours { " Not in php-fpm." } else { "" };
    let default = row
        .default
        .map_or(String::new(), |default| format!(" Default: `{default}`."));
    let _ = write!(
        page,
        "\n### `{name}`\n\n*{}.*{default}{ours}\n\n{}\n",
        capital(row.kind()),
        row.doc
    );
}

fn capital(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map_or(String::new(), |first| {
        first.to_uppercase().chain(letters).collect()
    })
}
