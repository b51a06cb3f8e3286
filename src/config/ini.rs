//! PHP's INI dialect, one physical line at a time.
//!
//! php-fpm gives each physical line of its configuration to `zend_parse_ini_string` in mode NORMAL. This is the same
//! language, read by recursive descent; a test compares the two on random lines (`ini::tests::oracle`). Its oddities
//! are kept where a file may lean on them: `a = b "c"` is `bc`. Only what PHP lets through by accident, a quote without its
//! partner or a NUL byte, is an error here, and `''` is the empty string.
//!
//! | in a value | meaning |
//! |---|---|
//! | `a b` | text; blanks inside are kept, blanks around are not |
//! | `"a;b"` | quoted: `\"`, `\\` and `\$` are escapes, `${NAME}` is replaced |
//! | `'a;b'` | quoted: nothing is replaced |
//! | `${NAME}`, `${NAME:-text}` | an environment variable, or else the text (or nothing) |
//! | `on` `yes` `true` | `1` |
//! | `off` `no` `none` `false` `null` | the empty string |
//! | `E_ALL & ~E_NOTICE` | constants, and arithmetic on 32-bit integers: <code>\| & ^ ~ ! ( )</code> |
//! | `; …` | a comment, to the end of the line |

/// How deep parentheses, `~` and `!` and `${A:-${B}}` may nest. No real file goes past three; the limit bounds the stack.
const MAX_DEPTH: usize = 64;

/// What a line says. A line may hold several statements: `[www] user = x`, and a bare carriage return ends a line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Statement {
    /// `[name]`
    Section(String),
    /// `name = value`
    Entry { name: String, value: String },
    /// `name[key] = value`
    Element {
        name: String,
        key: String,
        value: String,
    },
    /// `name`, with no `=`
    Bare(String),
}

/// What names in a line stand for.
pub(super) trait Names {
    /// The value of `${name}`.
    fn variable(&self, name: &str) -> Option<String>;
    /// The value of the PHP constant `name`.
    fn constant(&self, name: &str) -> Option<String>;
}

/// Why a line cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum SyntaxError {
    #[error(
        "syntax error, unexpected {0}; put a value that holds any of = ; | & ^ ~ ! ( ) \" ' in double quotes"
    )]
    Unexpected(Token),
    #[error("syntax error, the expression is nested more than {MAX_DEPTH} deep; write its result")]
    TooDeep,
    #[error("the line is not valid UTF-8; save the file as UTF-8")]
    NotUtf8,
    #[error("the line holds a NUL byte; remove it")]
    Nul,
}

/// What was found where it makes no sense.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Token {
    EndOfLine,
    Text(String),
}

impl std::fmt::Display for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::EndOfLine => f.write_str("end of line"),
            Self::Text(text) => write!(f, "'{}'", text.escape_debug()),
        }
    }
}

/// Reads one physical line, without its newline.
///
/// The statements before an error are returned with it.
pub(super) fn parse_line(
    line: &[u8],
    names: &dyn Names,
) -> (Vec<Statement>, Result<(), SyntaxError>) {
    if line.contains(&0) {
        return (Vec::new(), Err(SyntaxError::Nul));
    }
    // Editors leave a byte order mark at the start of a file; PHP drops one at the start of any text it scans.
    let line = line.strip_prefix(b"\xef\xbb\xbf").unwrap_or(line);
    let mut statements = Vec::new();
    let mut parser = Parser {
        rest: line,
        names,
        depth: 0,
    };
    let result = parser.statements(&mut statements);
    (statements, result)
}

fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t')
}

fn is_newline(byte: u8) -> bool {
    matches!(byte, b'\n' | b'\r')
}

/// `LABEL` of PHP's scanner: what a name may consist of, blanks included.
fn is_label(byte: u8) -> bool {
    !matches!(
        byte,
        b'=' | b'\n'
            | b'\r'
            | b'\t'
            | b';'
            | b'&'
            | b'|'
            | b'^'
            | b'$'
            | b'~'
            | b'('
            | b')'
            | b'{'
            | b'}'
            | b'!'
            | b'"'
            | b'['
    )
}

/// `VALUE_CHARS`: what unquoted text may consist of, blanks and `$` not included.
fn is_value(byte: u8) -> bool {
    !matches!(
        byte,
        b'$' | b'='
            | b' '
            | b'\t'
            | b'\n'
            | b'\r'
            | b';'
            | b'&'
            | b'|'
            | b'^'
            | b'~'
            | b'('
            | b')'
            | b'!'
            | b'"'
            | b'\''
    )
}

/// `SECTION_VALUE_CHARS`: the same inside brackets; blanks are text there.
fn is_bracketed(byte: u8) -> bool {
    !matches!(
        byte,
        b'$' | b'\n' | b'\r' | b';' | b'"' | b'\'' | b']' | b'\\'
    )
}

/// `CONSTANT`: what may name a PHP constant.
fn is_constant(text: &[u8]) -> bool {
    text.first()
        .is_some_and(|&first| first.is_ascii_alphabetic() || first == b'_')
        && text
            .iter()
            .all(|&byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

/// The value of a word that is one when it stands alone.
fn keyword(word: &[u8]) -> Option<&'static str> {
    const TRUE: [&str; 3] = ["true", "on", "yes"];
    const FALSE: [&str; 5] = ["false", "off", "no", "none", "null"];
    let is = |name: &&str| word.eq_ignore_ascii_case(name.as_bytes());
    if TRUE.iter().any(is) {
        Some("1")
    } else if FALSE.iter().any(is) {
        Some("")
    } else {
        None
    }
}

/// Blanks and newlines around a name.
fn trim(mut text: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', tail @ ..] = text {
        text = tail;
    }
    while let [head @ .., b' ' | b'\t' | b'\n' | b'\r'] = text {
        text = head;
    }
    text
}

/// C's `atoi` on a 64-bit machine, which is how PHP reads the operands of `|`, `&`, `^`, `~` and `!`.
fn atoi(text: &[u8]) -> i32 {
    let mut digits = text.trim_ascii_start();
    let negative = digits.first() == Some(&b'-');
    if let [b'-' | b'+', tail @ ..] = digits {
        digits = tail;
    }
    let mut value: i64 = 0;
    for &digit in digits.iter().take_while(|digit| digit.is_ascii_digit()) {
        value = value
            .saturating_mul(10)
            .saturating_add(i64::from(digit - b'0'));
    }
    // The truncation is atoi's: (int) strtol(…).
    (if negative { -value } else { value }) as i32
}

/// Where text is being read: the scanner's states differ in what ends it and in what is special in it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Within {
    Value,
    /// `name[…]`
    Offset,
    /// `[…]`
    Section,
    /// `${NAME:-…}`
    Fallback,
}

struct Parser<'a> {
    rest: &'a [u8],
    names: &'a dyn Names,
    depth: usize,
}

type Parsed<T> = Result<T, SyntaxError>;

impl<'a> Parser<'a> {
    fn statements(&mut self, out: &mut Vec<Statement>) -> Parsed<()> {
        loop {
            let blanks = self.take_while(is_blank);
            match self.rest.first() {
                None => return Ok(()),
                Some(b'\n' | b'\r') => {
                    self.bump(1);
                }
                Some(b';') => {
                    self.take_while(|byte| !is_newline(byte));
                }
                // PHP takes "  [" for the start of an element without a name, so it refuses an indented section.
                Some(b'[') if !blanks.is_empty() && !blanks.contains(&b'\t') => {
                    return self.unexpected();
                }
                Some(b'[') => {
                    self.bump(1);
                    let name = self.bracketed(Within::Section)?;
                    out.push(Statement::Section(text(name)?));
                }
                Some(&byte) if is_label(byte) => out.push(self.named()?),
                Some(_) => return self.unexpected(),
            }
        }
    }

    /// A statement that starts with a name.
    fn named(&mut self) -> Parsed<Statement> {
        let start = self.rest;
        let label = trim(self.take_while(is_label));
        if self.eat(b'[') {
            self.take_while(is_blank);
            let name = text(label.to_vec())?;
            let key = self.bracketed(Within::Offset)?;
            self.take_while(is_blank);
            if !self.eat(b'=') {
                return self.unexpected();
            }
            return Ok(Statement::Element {
                name,
                key: text(key)?,
                value: text(self.value()?)?,
            });
        }
        if keyword(label).is_some() {
            // "on = 1": PHP reads the name as the value.
            self.rest = start;
            return self.unexpected();
        }
        let name = text(label.to_vec())?;
        self.take_while(is_blank);
        if !self.eat(b'=') {
            return Ok(Statement::Bare(name));
        }
        Ok(Statement::Entry {
            name,
            value: text(self.value()?)?,
        })
    }

    /// What follows `=`, to the end of the value.
    fn value(&mut self) -> Parsed<Vec<u8>> {
        self.take_while(is_blank);
        if self.at_value_end() {
            return Ok(Vec::new());
        }
        let before = self.rest;
        let word = self.word(Within::Value);
        let value = match keyword(word) {
            Some(value) => {
                self.take_while(is_blank);
                value.into()
            }
            None => {
                self.rest = before;
                self.expression()?
            }
        };
        if !self.at_value_end() {
            return self.unexpected();
        }
        Ok(value)
    }

    /// At the line's end or a comment.
    fn at_value_end(&self) -> bool {
        self.rest
            .first()
            .is_none_or(|&byte| is_newline(byte) || byte == b';')
    }

    /// Operators are left-associative and `|`, `&`, `^` bind alike.
    fn expression(&mut self) -> Parsed<Vec<u8>> {
        let mut left = self.operand()?;
        while let Some(&operator @ (b'|' | b'&' | b'^')) = self.rest.first() {
            self.bump(1);
            self.take_while(is_blank);
            let (a, b) = (atoi(&left), atoi(&self.operand()?));
            let result = match operator {
                b'|' => a | b,
                b'&' => a & b,
                _ => a ^ b,
            };
            left = result.to_string().into_bytes();
        }
        Ok(left)
    }

    fn operand(&mut self) -> Parsed<Vec<u8>> {
        let Some(&operator @ (b'~' | b'!' | b'(')) = self.rest.first() else {
            return self.list(Within::Value);
        };
        self.bump(1);
        self.take_while(is_blank);
        self.deeper(|parser| match operator {
            b'~' => Ok((!atoi(&parser.operand()?)).to_string().into_bytes()),
            b'!' => Ok(i32::from(atoi(&parser.operand()?) == 0)
                .to_string()
                .into_bytes()),
            _ => {
                let inner = parser.expression()?;
                if !parser.eat(b')') {
                    return parser.unexpected();
                }
                parser.take_while(is_blank);
                Ok(inner)
            }
        })
    }

    /// Pieces of text, put together. Blanks before a double quote are not text.
    fn list(&mut self, within: Within) -> Parsed<Vec<u8>> {
        let mut out = Vec::new();
        let start = self.rest;
        loop {
            let here = self.rest;
            let blanks = self.take_while(is_blank);
            match self.rest {
                [b'"', ..] => {
                    self.quoted(&mut out)?;
                    continue;
                }
                [b']', ..] if within == Within::Offset => break,
                _ if within != Within::Value => self.rest = here,
                _ if self.at_value_end() => break,
                _ => out.extend_from_slice(blanks),
            }
            match self.rest {
                [b'$', b'{', ..] => self.variable(&mut out)?,
                [b'\'', inside @ ..] => {
                    let Some(length) = inside.iter().position(|&byte| byte == b'\'') else {
                        return self.unexpected();
                    };
                    out.extend_from_slice(inside.get(..length).unwrap_or_default());
                    self.bump(length + 2);
                }
                _ => {
                    let word = self.word(within);
                    if word.is_empty() {
                        break;
                    }
                    if within == Within::Value && keyword(word).is_some() {
                        // "a on": PHP takes the word for a value of its own.
                        self.rest = here;
                        return self.unexpected();
                    }
                    match self.constant(word, within) {
                        Some(value) => out.extend_from_slice(value.as_bytes()),
                        None => out.extend_from_slice(word),
                    }
                }
            }
        }
        if within == Within::Value && start.len() == self.rest.len() {
            return self.unexpected();
        }
        Ok(out)
    }

    /// A run of unquoted text; empty where there is none.
    fn word(&mut self, within: Within) -> &'a [u8] {
        let plain = |byte: u8| match within {
            Within::Value => is_value(byte),
            Within::Offset | Within::Section => is_bracketed(byte),
            Within::Fallback => byte == b']' || (byte != b'}' && is_bracketed(byte)),
        };
        let start = self.rest;
        loop {
            let length = match self.rest {
                [byte, ..] if plain(*byte) => 1,
                // A dollar that starts no variable is text, with what follows it.
                [b'$', b'\\', escaped, ..] if !is_newline(*escaped) => 3,
                [b'$', b'{', ..] => break,
                [b'$', next, ..] if !is_newline(*next) => 2,
                [b'$', ..] => 1,
                [b'\\', _, ..] if within != Within::Value => 2,
                _ => break,
            };
            self.bump(length);
        }
        start
            .get(..start.len() - self.rest.len())
            .unwrap_or_default()
    }

    fn constant(&self, word: &[u8], within: Within) -> Option<String> {
        if within == Within::Section || !is_constant(word) {
            return None;
        }
        if let Some(value) = [("true", "1"), ("false", ""), ("null", "")]
            .into_iter()
            .find_map(|(name, value)| word.eq_ignore_ascii_case(name.as_bytes()).then_some(value))
        {
            return Some(value.to_owned());
        }
        self.names.constant(std::str::from_utf8(word).ok()?)
    }

    /// `"…"` and the blanks after it.
    fn quoted(&mut self, out: &mut Vec<u8>) -> Parsed<()> {
        self.bump(1);
        loop {
            match self.rest {
                [] => return Err(SyntaxError::Unexpected(Token::EndOfLine)),
                [b'"', ..] => {
                    self.bump(1);
                    self.take_while(is_blank);
                    return Ok(());
                }
                [b'$', b'{', ..] => self.variable(out)?,
                // A Windows path: "C:\path\" ends here all the same.
                [b'\\', b'"', tail @ ..] if tail.first().is_none_or(|&byte| is_newline(byte)) => {
                    out.push(b'\\');
                    self.bump(1);
                }
                [b'\\', escaped @ (b'"' | b'\\' | b'$'), ..] => {
                    out.push(*escaped);
                    self.bump(2);
                }
                [b'\\', other, ..] => {
                    out.extend_from_slice(&[b'\\', *other]);
                    self.bump(2);
                }
                [byte, ..] => {
                    out.push(*byte);
                    self.bump(1);
                }
            }
        }
    }

    /// `${NAME}` or `${NAME:-text}`.
    fn variable(&mut self, out: &mut Vec<u8>) -> Parsed<()> {
        self.bump(2);
        let start = self.rest;
        let label = self.take_while(is_label);
        let mut default = Vec::new();
        let name = match label.windows(2).position(|pair| pair == b":-") {
            None => label,
            Some(at) => {
                self.rest = start;
                self.bump(at + 2);
                default = self.deeper(|parser| parser.list(Within::Fallback))?;
                start.get(..at).unwrap_or_default()
            }
        };
        let name = trim(name);
        if name.is_empty() || !self.eat(b'}') {
            return self.unexpected();
        }
        match std::str::from_utf8(name)
            .ok()
            .and_then(|name| self.names.variable(name))
        {
            Some(value) => out.extend_from_slice(value.as_bytes()),
            None => out.extend_from_slice(&default),
        }
        Ok(())
    }

    /// What stands between brackets, and the closing one.
    fn bracketed(&mut self, within: Within) -> Parsed<Vec<u8>> {
        let inside = self.list(within)?;
        if !self.eat(b']') {
            return self.unexpected();
        }
        Ok(inside)
    }

    fn deeper<T>(&mut self, parse: impl FnOnce(&mut Self) -> Parsed<T>) -> Parsed<T> {
        if self.depth == MAX_DEPTH {
            return Err(SyntaxError::TooDeep);
        }
        self.depth += 1;
        let result = parse(self);
        self.depth -= 1;
        result
    }

    fn take_while(&mut self, want: impl Fn(u8) -> bool) -> &'a [u8] {
        let length = self
            .rest
            .iter()
            .position(|&byte| !want(byte))
            .unwrap_or(self.rest.len());
        let (taken, rest) = self.rest.split_at(length);
        self.rest = rest;
        taken
    }

    fn eat(&mut self, wanted: u8) -> bool {
        let found = self.rest.first() == Some(&wanted);
        if found {
            self.bump(1);
        }
        found
    }

    fn bump(&mut self, length: usize) {
        self.rest = self.rest.get(length..).unwrap_or_default();
    }

    fn unexpected<T>(&self) -> Parsed<T> {
        let rest = self.rest.trim_ascii();
        if rest.is_empty() {
            return Err(SyntaxError::Unexpected(Token::EndOfLine));
        }
        // The first word is enough to find the place by.
        let length = rest
            .iter()
            .skip(1)
            .position(|&byte| !is_value(byte))
            .map_or(rest.len(), |at| at + 1);
        let found = String::from_utf8_lossy(rest.get(..length).unwrap_or(rest)).into_owned();
        Err(SyntaxError::Unexpected(Token::Text(found)))
    }
}

fn text(bytes: Vec<u8>) -> Parsed<String> {
    String::from_utf8(bytes).map_err(|_| SyntaxError::NotUtf8)
}

#[cfg(test)]
mod tests;
