//! A browser for tests: HTTP/1.1 with kept connections, cookies and forms, that notes when each piece of an answer came.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use super::PATIENCE;
use super::request::{self, Part};

/// One visitor of a site.
pub(crate) struct Browser {
    address: SocketAddr,
    cookies: BTreeMap<String, String>,
    connection: Option<BufReader<TcpStream>>,
    connections: u32,
}

impl Browser {
    pub(crate) fn new(address: SocketAddr) -> Self {
        Self {
            address,
            cookies: BTreeMap::new(),
            connection: None,
            connections: 0,
        }
    }

    pub(crate) fn get(&mut self, uri: &str) -> Page {
        self.send("GET", uri, &[], b"")
    }

    /// POST of a form's fields.
    pub(crate) fn form(&mut self, uri: &str, fields: &[(&str, &str)]) -> Page {
        let body: Vec<String> = fields
            .iter()
            .map(|(name, value)| format!("{}={}", escape(name), escape(value)))
            .collect();
        let kind = ("Content-Type", "application/x-www-form-urlencoded");
        self.send("POST", uri, &[kind], body.join("&").as_bytes())
    }

    /// POST of a form with files.
    pub(crate) fn upload(&mut self, uri: &str, parts: &[Part<'_>]) -> Page {
        let kind = ("Content-Type", "multipart/form-data; boundary=a-boundary");
        self.send(
            "POST",
            uri,
            &[kind],
            &request::multipart(parts, "a-boundary"),
        )
    }

    /// A body's length need not be among the headers, nor cookies.
    pub(crate) fn send(
        &mut self,
        method: &str,
        uri: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Page {
        self.try_send(method, uri, headers, body)
            .unwrap_or_else(|error| panic!("no answer to {method} {uri}: {error}"))
    }

    pub(crate) fn try_get(&mut self, uri: &str) -> io::Result<Page> {
        self.try_send("GET", uri, &[], b"")
    }

    fn try_send(
        &mut self,
        method: &str,
        uri: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> io::Result<Page> {
        let mut request = format!("{method} {uri} HTTP/1.1\r\nHost: {}\r\n", self.address);
        for (name, value) in headers {
            request += &format!("{name}: {value}\r\n");
        }
        if !self.cookies.is_empty() {
            let cookies: Vec<String> = self
                .cookies
                .iter()
                .map(|(name, value)| format!("{name}={value}"))
                .collect();
            request += &format!("Cookie: {}\r\n", cookies.join("; "));
        }
        if !body.is_empty() || matches!(method, "POST" | "PUT" | "PATCH") {
            request += &format!("Content-Length: {}\r\n", body.len());
        }
        let request = [request.as_bytes(), b"\r\n", body].concat();

        let mut answer = Err(io::ErrorKind::NotConnected.into());
        if let Some(connection) = self.connection.take() {
            answer = exchange(connection, method, &request);
        }
        // A server may close a kept connection just when it is used again.
        if matches!(&answer, Err(error) if error.kind() == io::ErrorKind::NotConnected) {
            self.connections += 1;
            let stream = TcpStream::connect_timeout(&self.address, PATIENCE).unwrap();
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            stream.set_write_timeout(Some(PATIENCE)).unwrap();
            answer = exchange(BufReader::new(stream), method, &request);
        }
        let (page, connection) = answer?;
        self.connection = connection;
        for line in page.headers("Set-Cookie") {
            self.remember(line);
        }
        Ok(page)
    }

    fn remember(&mut self, line: &str) {
        let (pair, attributes) = line.split_once(';').unwrap_or((line, ""));
        let Some((name, value)) = pair.split_once('=') else {
            return;
        };
        let attributes = attributes.to_ascii_lowercase();
        if attributes.contains("max-age=0") || attributes.contains("01-jan-1970") {
            self.cookies.remove(name.trim());
        } else {
            self.cookies
                .insert(name.trim().to_owned(), value.trim().to_owned());
        }
    }

    /// How many times it connected.
    pub(crate) fn connections(&self) -> u32 {
        self.connections
    }
}

/// The answer, and the connection if it may be used again. `NotConnected`: the connection ended before any answer.
fn exchange(
    mut connection: BufReader<TcpStream>,
    method: &str,
    request: &[u8],
) -> io::Result<(Page, Option<BufReader<TcpStream>>)> {
    let sent = Instant::now();
    let status_line = connection
        .get_mut()
        .write_all(request)
        .and_then(|()| read_line(&mut connection))
        .map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::BrokenPipe => io::ErrorKind::NotConnected.into(),
            _ => error,
        })?;
    let status = status_line
        .split(' ')
        .nth(1)
        .and_then(|code| code.parse().ok())
        .ok_or_else(|| invalid(&status_line))?;
    let mut page = Page {
        status,
        status_line,
        headers: Vec::new(),
        body: Vec::new(),
        pieces: Vec::new(),
    };
    loop {
        let line = read_line(&mut connection)?;
        if line.is_empty() {
            break;
        }
        let (name, value) = line.split_once(':').ok_or_else(|| invalid(&line))?;
        page.headers
            .push((name.to_owned(), value.trim().to_owned()));
    }
    let mut keep = !page
        .headers("Connection")
        .iter()
        .any(|value| value.eq_ignore_ascii_case("close"));
    if page.headers("Transfer-Encoding").contains(&"chunked") {
        loop {
            let line = read_line(&mut connection)?;
            let length = line.split(';').next().unwrap_or_default().trim();
            let length = usize::from_str_radix(length, 16).map_err(|_| invalid(&line))?;
            page.read(&mut connection, sent, Some(length))?;
            // Every chunk ends in a line end. There are no trailers.
            read_line(&mut connection)?;
            if length == 0 {
                break;
            }
        }
    } else if let Some(length) = page.header("Content-Length") {
        let length = length.parse().map_err(|_| invalid(length))?;
        if method != "HEAD" {
            page.read(&mut connection, sent, Some(length))?;
        }
    } else if method != "HEAD" && !matches!(status, 204 | 304) {
        page.read(&mut connection, sent, None)?;
        keep = false;
    }
    Ok((page, keep.then_some(connection)))
}

fn read_line(connection: &mut BufReader<TcpStream>) -> io::Result<String> {
    let mut line = String::new();
    connection.read_line(&mut line)?;
    match line.strip_suffix("\r\n") {
        Some(line) => Ok(line.to_owned()),
        None => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}

fn invalid(what: &str) -> io::Error {
    io::Error::other(format!("this is not HTTP: {what:?}"))
}

/// A value for a query or a form.
pub(crate) fn escape(text: &str) -> String {
    text.bytes()
        .map(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' => {
                char::from(byte).to_string()
            }
            _ => format!("%{byte:02X}"),
        })
        .collect()
}

/// An answer.
pub(crate) struct Page {
    pub(crate) status: u16,
    status_line: String,
    headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
    /// The body as it came, with the time since the request was sent.
    pub(crate) pieces: Vec<(Duration, Vec<u8>)>,
}

impl Page {
    fn read(
        &mut self,
        connection: &mut BufReader<TcpStream>,
        sent: Instant,
        length: Option<usize>,
    ) -> io::Result<()> {
        let mut buffer = [0; 1 << 16];
        let mut left = length.unwrap_or(usize::MAX);
        while left > 0 {
            let limit = left.min(buffer.len());
            let count = connection.read(&mut buffer[..limit])?;
            if count == 0 {
                return match length {
                    Some(_) => Err(io::Error::other("the answer's body is cut off")),
                    None => Ok(()),
                };
            }
            self.body.extend_from_slice(&buffer[..count]);
            self.pieces.push((sent.elapsed(), buffer[..count].to_vec()));
            left -= count;
        }
        Ok(())
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("expected JSON ({error}): {self:?}"))
    }

    fn headers(&self, name: &str) -> Vec<&str> {
        self.headers
            .iter()
            .filter(|(other, _)| other.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
            .collect()
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers(name).first().copied()
    }

    /// It has this status.
    #[track_caller]
    pub(crate) fn expect(self, status: u16) -> Self {
        assert_eq!(
            self.status, status,
            "expected status {status}, came {self:?}"
        );
        self
    }

    /// It is a 200 with this text in it.
    #[track_caller]
    pub(crate) fn expect_text(self, text: &str) -> Self {
        assert!(
            self.status == 200 && self.text().contains(text),
            "expected 200 with {text:?}, came {self:?}"
        );
        self
    }

    /// The value of an input field.
    #[track_caller]
    pub(crate) fn field(&self, name: &str) -> String {
        let text = self.text();
        let input = text
            .split("<input ")
            .skip(1)
            .filter_map(|rest| rest.split('>').next())
            .find(|input| input.contains(&format!("name=\"{name}\"")));
        let value = input.and_then(|input| input.split("value=\"").nth(1)?.split('"').next());
        value
            .unwrap_or_else(|| panic!("no field {name} in {self:?}"))
            .to_owned()
    }
}

impl fmt::Debug for Page {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = match &self.body {
            binary if binary.contains(&0) => b"",
            text => &text[..text.len().min(2000)],
        };
        f.debug_struct("Page")
            .field("status", &self.status_line)
            .field("headers", &self.headers)
            .field("length", &self.body.len())
            .field("body", &String::from_utf8_lossy(shown))
            .finish()
    }
}
