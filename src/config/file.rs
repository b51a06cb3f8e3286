//! Reads configuration files into settings: lines, sections, includes.

use std::path::Path;
use std::sync::Arc;

use super::error::{Error, Hint, Place, Problem, Syntax, Warning};
use super::ini::{self, Names, Statement};
use super::settings::{GlobalSettings, PoolSettings};
use super::table::{self, Directive, Reads, Scope};
use super::value::Refusal;
use super::{Options, paths};

/// How deep files may include each other, the main file counted.
const MAX_INCLUDE_DEPTH: u32 = 5;

/// What the files said, before it is known whether it makes sense.
pub(super) struct Settings {
    pub(super) global: GlobalSettings,
    pub(super) pools: Vec<PoolSettings>,
    pub(super) errors: Vec<Error>,
    pub(super) warnings: Vec<Warning>,
    /// Something could not be read at all: what is missing may be there.
    pub(super) incomplete: bool,
}

/// Reads a file and all that it includes.
pub(super) fn read(file: &Path, options: &Options<'_>) -> Settings {
    let settings = Settings {
        global: GlobalSettings::new(),
        pools: Vec::new(),
        errors: Vec::new(),
        warnings: Vec::new(),
        incomplete: false,
    };
    let mut reader = Reader {
        options,
        settings,
        section: None,
        depth: 0,
    };
    reader.file(file, None);
    reader.settings
}

struct Reader<'a> {
    options: &'a Options<'a>,
    settings: Settings,
    /// The pool whose section this is; `None` in `[global]`. An included file goes on in the section that includes it,
    /// and leaves behind the section it ends in.
    section: Option<usize>,
    depth: u32,
}

impl Reader<'_> {
    fn file(&mut self, path: &Path, included_by: Option<&Place>) {
        if self.depth == MAX_INCLUDE_DEPTH {
            self.settings.incomplete = true;
            return self.error(
                included_by,
                Problem::IncludedTooDeep {
                    path: path.display().to_string(),
                },
            );
        }
        let bytes = match std::fs::read(path) {
            Ok(bytes) => bytes,
            Err(error) => {
                self.settings.incomplete = true;
                return self.error(
                    included_by,
                    Problem::Unreadable {
                        path: path.to_owned(),
                        reason: error.to_string(),
                    },
                );
            }
        };
        self.depth += 1;
        let file: Arc<Path> = path.into();
        for (line, text) in (1..).zip(bytes.split(|&byte| byte == b'\n')) {
            self.line(
                text,
                &Place {
                    file: Arc::clone(&file),
                    line,
                },
            );
        }
        self.depth -= 1;
    }

    fn line(&mut self, text: &[u8], place: &Place) {
        let (statements, result) = ini::parse_line(text, self.options);
        for statement in statements {
            match statement {
                Statement::Section(name) => self.section(name.trim(), place),
                Statement::Entry { name, value } => self.entry(&name, value, place),
                Statement::Element { name, key, value } => self.element(&name, &key, value, place),
                Statement::Bare(name) => self.error(Some(place), Problem::NoValue { name }),
            }
        }
        if let Err(error) = result {
            self.settings.incomplete = true;
            self.error(Some(place), Problem::Syntax(Syntax(error)));
        }
    }

    /// `[name]`: the section that has this name already, or a new pool.
    fn section(&mut self, name: &str, place: &Place) {
        if name.is_empty() {
            return self.error(Some(place), Problem::NamelessSection);
        }
        if name.eq_ignore_ascii_case("global") {
            self.section = None;
            return;
        }
        let pools = &mut self.settings.pools;
        let known = pools
            .iter()
            .position(|pool| pool.name.eq_ignore_ascii_case(name));
        self.section = known.or_else(|| {
            pools.push(PoolSettings::new(name.to_owned(), place.clone()));
            pools.len().checked_sub(1)
        });
    }

    /// `name = value`
    fn entry(&mut self, name: &str, value: String, place: &Place) {
        let Some(row) = table::find(name, false, self.scope()) else {
            let hint = self.hint(name);
            return self.error(
                Some(place),
                Problem::Unknown {
                    name: name.to_owned(),
                    hint,
                },
            );
        };
        let name = row.name;
        let read = match &row.reads {
            Reads::Include => return self.include(&value, place),
            Reads::NotYet { .. } => return self.not_yet(name.to_owned(), value, place),
            Reads::Global(field) => {
                if value.contains("$pool") {
                    return self.error(
                        Some(place),
                        Problem::NoPoolName {
                            name: name.to_owned(),
                            value,
                        },
                    );
                }
                (field.read)(&mut self.settings.global, &value, Some(place))
            }
            Reads::Pool(field) => match self.pool() {
                Some(pool) => {
                    let value = value.replace("$pool", &pool.name);
                    (field.read)(pool, &value, Some(place))
                }
                None => Ok(()),
            },
            Reads::Map(_) => Ok(()),
        };
        self.refused(name.to_owned(), value, read, place);
    }

    /// `name[key] = value`
    fn element(&mut self, name: &str, key: &str, value: String, place: &Place) {
        let row = table::find(name, true, Scope::Pool);
        let suppresses = row.is_some_and(|row| row.name == "access.suppress_path[]");
        if key.is_empty() && !suppresses {
            return self.error(
                Some(place),
                Problem::MissingKey {
                    name: name.to_owned(),
                },
            );
        }
        let full_name = format!("{name}[{key}]");
        let Some(row) = row else {
            let hint = self.hint(name);
            return self.error(
                Some(place),
                Problem::UnknownElement {
                    name: name.to_owned(),
                    hint,
                },
            );
        };
        let (name, key) = (row.bare_name().to_owned(), key.to_owned());
        let Reads::Map(map) = &row.reads else {
            return self.not_yet(full_name, value, place);
        };
        if key.contains('=') {
            return self.error(Some(place), Problem::BadKey { name, key });
        }
        let Some(pool) = self.pool() else {
            return self.error(Some(place), Problem::ElementInGlobal { name, key });
        };
        let expanded = value.replace("$pool", &pool.name);
        let read = (map.read)(pool, &key, &expanded);
        self.refused(full_name, value, read, place);
    }

    /// Reads the files that match a pattern, in the order of their names.
    fn include(&mut self, pattern: &str, place: &Place) {
        let pattern = paths::full(pattern, None, self.options, self.options.default_prefix);
        let bad = |reason: String| Problem::BadInclude {
            pattern: pattern.clone(),
            reason,
        };
        // glob(3) knows no "**".
        let mut simple = String::with_capacity(pattern.len());
        for letter in pattern.chars() {
            if letter != '*' || !simple.ends_with('*') {
                simple.push(letter);
            }
        }
        let like_glob3 = glob::MatchOptions {
            case_sensitive: true,
            require_literal_separator: true,
            require_literal_leading_dot: true,
        };
        let found: Result<Vec<_>, _> = match glob::glob_with(&simple, like_glob3) {
            Ok(found) => found.collect(),
            Err(error) => {
                self.settings.incomplete = true;
                return self.error(Some(place), bad(error.to_string()));
            }
        };
        match found {
            Ok(found) if found.is_empty() => {
                self.settings.warnings.push(Warning::NothingIncluded {
                    pattern,
                    place: place.clone(),
                });
            }
            Ok(mut found) => {
                found.sort_unstable();
                for path in found.into_iter().filter(|path| !path.is_dir()) {
                    self.file(&path, Some(place));
                }
            }
            Err(error) => {
                self.settings.incomplete = true;
                self.error(Some(place), bad(error.to_string()));
            }
        }
    }

    fn scope(&self) -> Scope {
        if self.section.is_some() {
            Scope::Pool
        } else {
            Scope::Global
        }
    }

    fn pool(&mut self) -> Option<&mut PoolSettings> {
        self.settings.pools.get_mut(self.section?)
    }

    /// What somebody who wrote this unknown name may have meant.
    fn hint(&self, name: &str) -> Hint {
        let scope = self.scope();
        let other = if scope == Scope::Pool {
            Scope::Global
        } else {
            Scope::Pool
        };
        if let Some(row) = table::find(name, true, Scope::Pool) {
            Hint::WantsKey(row.bare_name())
        } else if let Some(row) = table::find(name, false, scope) {
            Hint::TakesNoKey(row.name)
        } else if table::find(name, false, other).is_some() {
            if other == Scope::Global {
                Hint::InGlobal
            } else {
                Hint::InPool
            }
        } else {
            closest(
                name,
                table::DIRECTIVES.iter().filter(|row| row.is_in(scope)),
            )
            .map_or(Hint::None, Hint::Like)
        }
    }

    fn not_yet(&mut self, name: String, value: String, place: &Place) {
        self.error(Some(place), Problem::NotYet { name, value });
    }

    fn refused(&mut self, name: String, value: String, read: Result<(), Refusal>, place: &Place) {
        if let Err(refusal) = read {
            self.error(
                Some(place),
                Problem::BadValue {
                    name,
                    value,
                    refusal,
                },
            );
        }
    }

    fn error(&mut self, place: Option<&Place>, problem: Problem) {
        self.settings.errors.push(Error {
            place: place.cloned(),
            pool: None,
            problem,
        });
    }
}

impl Names for Options<'_> {
    fn variable(&self, name: &str) -> Option<String> {
        (self.env)(name)
    }

    /// The constants that configurations use. Others, which only a running PHP knows, stay text.
    fn constant(&self, name: &str) -> Option<String> {
        let value: u32 = match name {
            "E_ERROR" => 1,
            "E_WARNING" => 1 << 1,
            "E_PARSE" => 1 << 2,
            "E_NOTICE" => 1 << 3,
            "E_CORE_ERROR" => 1 << 4,
            "E_CORE_WARNING" => 1 << 5,
            "E_COMPILE_ERROR" => 1 << 6,
            "E_COMPILE_WARNING" => 1 << 7,
            "E_USER_ERROR" => 1 << 8,
            "E_USER_WARNING" => 1 << 9,
            "E_USER_NOTICE" => 1 << 10,
            "E_STRICT" => 1 << 11,
            "E_RECOVERABLE_ERROR" => 1 << 12,
            "E_DEPRECATED" => 1 << 13,
            "E_USER_DEPRECATED" => 1 << 14,
            // PHP 8.4 took E_STRICT out.
            "E_ALL" if self.php_version_id >= 80_400 => 0x77ff,
            "E_ALL" => 0x7fff,
            "PHP_VERSION_ID" => self.php_version_id,
            "DIRECTORY_SEPARATOR" => return Some("/".to_owned()),
            "PATH_SEPARATOR" => return Some(":".to_owned()),
            _ => return None,
        };
        Some(value.to_string())
    }
}

/// The directive whose name is at most two slips of the pen away.
fn closest(name: &str, rows: impl Iterator<Item = &'static Directive>) -> Option<&'static str> {
    // Nobody mistypes a name of this length; the distance takes time.
    const LONGEST: usize = 64;
    if name.len() > LONGEST {
        return None;
    }
    rows.map(|row| {
        (
            distance(&name.to_ascii_lowercase(), row.bare_name()),
            row.name,
        )
    })
    .filter(|&(slips, known)| slips <= 2 && slips * 3 <= known.len())
    .min()
    .map(|(_, known)| known)
}

/// Levenshtein's distance in bytes.
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        let mut diagonal = i;
        let mut left = i + 1;
        for (cell, y) in row.iter_mut().skip(1).zip(b.bytes()) {
            left = (diagonal + usize::from(x != y))
                .min(left + 1)
                .min(*cell + 1);
            diagonal = std::mem::replace(cell, left);
        }
        if let Some(first) = row.first_mut() {
            *first = i + 1;
        }
    }
    row.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::distance;

    #[test]
    fn distance_counts_slips() {
        for (a, b, slips) in [
            ("", "", 0),
            ("listen", "listen", 0),
            ("lisen", "listen", 1),
            ("kitten", "sitting", 3),
            ("", "abc", 3),
        ] {
            assert_eq!((distance(a, b), distance(b, a)), (slips, slips), "{a} {b}");
        }
    }
}
