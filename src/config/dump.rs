//! What `-tt` shows.

use std::fmt::Write as _;

use super::Config;
use super::table::{DIRECTIVES, Reads};

impl Config {
    /// Every directive and its value, in php-fpm's layout, without the directives that this version does not read.
    ///
    /// Each line is for one message in the log, as php-fpm prints it. Variables of `env[]` are shown as the file has
    /// them, so that the environment's secrets stay out of the log.
    pub fn dump(&self) -> String {
        let mut out = String::from("[global]\n");
        for row in DIRECTIVES {
            if let Reads::Global(field) = &row.reads {
                line(&mut out, row.name, &(field.show)(&self.global_settings));
            }
        }
        out.push_str(" \n");
        for pool in &self.pool_settings {
            let _ = writeln!(out, "[{}]", pool.name);
            for row in DIRECTIVES {
                match &row.reads {
                    Reads::Pool(field) => line(&mut out, row.name, &(field.show)(pool)),
                    Reads::Map(map) => {
                        // The last line of the file first: the order in which they take effect.
                        let values = map.show.map(|show| show(pool)).unwrap_or_default();
                        for (key, value) in values.iter().rev() {
                            line(&mut out, &format!("{}[{key}]", row.bare_name()), value);
                        }
                    }
                    Reads::Include | Reads::Global(_) | Reads::NotYet { .. } => {}
                }
            }
            out.push_str(" \n");
        }
        out
    }
}

fn line(out: &mut String, name: &str, value: &str) {
    let _ = writeln!(out, "\t{name} = {value}");
}
