//! A FastCGI client that sends whatever bytes it is given.

use std::fmt;
use std::io::{self, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use super::PATIENCE;
use super::record::{self, Record};
use super::request::{Request, Response};

/// Where a server listens.
#[derive(Debug, Clone)]
pub(crate) enum Address {
    Unix(PathBuf),
    Tcp(SocketAddr),
}

impl Address {
    pub(crate) fn try_connect(&self) -> io::Result<Socket> {
        match self {
            Self::Unix(path) => UnixStream::connect(path).map(Socket::Unix),
            Self::Tcp(address) => TcpStream::connect_timeout(address, PATIENCE).map(|stream| {
                let _ = stream.set_nodelay(true);
                Socket::Tcp(stream)
            }),
        }
    }
}

impl fmt::Display for Address {
    /// As `listen` takes it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "{}", path.display()),
            Self::Tcp(address) => write!(f, "{address}"),
        }
    }
}

#[derive(Debug)]
pub(crate) enum Socket {
    Unix(UnixStream),
    Tcp(TcpStream),
}

impl Socket {
    pub(crate) fn set_read_timeout(&self, timeout: Duration) {
        let timeout = Some(timeout.max(Duration::from_millis(1)));
        match self {
            Self::Unix(stream) => stream.set_read_timeout(timeout).unwrap(),
            Self::Tcp(stream) => stream.set_read_timeout(timeout).unwrap(),
        }
    }

    fn set_write_timeout(&self, timeout: Duration) {
        match self {
            Self::Unix(stream) => stream.set_write_timeout(Some(timeout)).unwrap(),
            Self::Tcp(stream) => stream.set_write_timeout(Some(timeout)).unwrap(),
        }
    }

    fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        match self {
            Self::Unix(stream) => stream.shutdown(how),
            Self::Tcp(stream) => stream.shutdown(how),
        }
    }

    fn try_clone(&self) -> Self {
        match self {
            Self::Unix(stream) => Self::Unix(stream.try_clone().unwrap()),
            Self::Tcp(stream) => Self::Tcp(stream.try_clone().unwrap()),
        }
    }
}

impl io::Read for Socket {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Unix(stream) => stream.read(buffer),
            Self::Tcp(stream) => stream.read(buffer),
        }
    }
}

impl io::Write for Socket {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Unix(stream) => stream.write(bytes),
            Self::Tcp(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// One connection.
pub(crate) struct Client {
    socket: Socket,
    received: Vec<u8>,
    /// Records of other requests than the one that was asked for.
    aside: Vec<Record>,
}

/// Why there is no record.
#[derive(Debug)]
pub(crate) enum NoRecord {
    /// The server closed the connection, in order or by a reset.
    #[expect(dead_code, reason = "for messages, through Debug")]
    Closed(Option<io::Error>),
    Timeout,
}

impl Client {
    pub(crate) fn connect(address: &Address) -> Self {
        let socket = address
            .try_connect()
            .unwrap_or_else(|error| panic!("cannot connect to {address}: {error}"));
        socket.set_write_timeout(PATIENCE);
        Self {
            socket,
            received: Vec::new(),
            aside: Vec::new(),
        }
    }

    pub(crate) fn send(&mut self, bytes: &[u8]) {
        self.try_send(bytes)
            .unwrap_or_else(|error| panic!("cannot send {} bytes: {error}", bytes.len()));
    }

    /// For bytes at which the server may close the connection.
    pub(crate) fn try_send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.socket.write_all(bytes)
    }

    /// The same connection, to send from another thread.
    pub(crate) fn sender(&self) -> Socket {
        self.socket.try_clone()
    }

    /// No more will be sent; answers may come.
    pub(crate) fn half_close(&self) {
        self.socket.shutdown(Shutdown::Write).unwrap();
    }

    pub(crate) fn request(&mut self, request: &Request) -> Response {
        self.send(&request.bytes());
        self.response(request.id)
    }

    /// Reads up to the end of this request's answer.
    pub(crate) fn response(&mut self, id: u16) -> Response {
        self.response_within(id, PATIENCE)
    }

    pub(crate) fn response_within(&mut self, id: u16, limit: Duration) -> Response {
        match self.try_response(id, limit) {
            Ok(response) => response,
            Err((why, so_far)) => {
                panic!("no end of the answer to request {id}: {why:?}; so far: {so_far:?}")
            }
        }
    }

    pub(crate) fn try_response(
        &mut self,
        id: u16,
        limit: Duration,
    ) -> Result<Response, (NoRecord, Vec<Record>)> {
        let until = Instant::now() + limit;
        let (mut records, others) = std::mem::take(&mut self.aside)
            .into_iter()
            .partition::<Vec<_>, _>(|record| record.id == id);
        self.aside = others;
        while records
            .last()
            .is_none_or(|record| record.kind != record::END)
        {
            match self.record_until(until) {
                Ok(record) if record.id == id => records.push(record),
                Ok(record) => self.aside.push(record),
                Err(why) => return Err((why, records)),
            }
        }
        Ok(Response::from_records(records))
    }

    /// The next record, whatever it is.
    pub(crate) fn record(&mut self) -> Record {
        self.record_within(PATIENCE)
            .unwrap_or_else(|why| panic!("expected a record, came: {why:?}"))
    }

    pub(crate) fn record_within(&mut self, limit: Duration) -> Result<Record, NoRecord> {
        self.record_until(Instant::now() + limit)
    }

    fn record_until(&mut self, until: Instant) -> Result<Record, NoRecord> {
        loop {
            if let Some(record) = self.take_record() {
                return Ok(record);
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(NoRecord::Timeout);
            }
            self.socket.set_read_timeout(left);
            let mut buffer = [0; 1 << 16];
            match self.socket.read(&mut buffer) {
                Ok(0) => return Err(NoRecord::Closed(None)),
                Ok(count) => self.received.extend_from_slice(&buffer[..count]),
                Err(error)
                    if matches!(
                        error.kind(),
                        io::ErrorKind::WouldBlock
                            | io::ErrorKind::TimedOut
                            | io::ErrorKind::Interrupted
                    ) => {}
                Err(error) => return Err(NoRecord::Closed(Some(error))),
            }
        }
    }

    fn take_record(&mut self) -> Option<Record> {
        let header: [u8; 8] = self.received.get(..8)?.try_into().unwrap();
        let [version, kind, id1, id0, length1, length0, padding, _] = header;
        let end = 8 + usize::from(u16::from_be_bytes([length1, length0]));
        let content = self.received.get(8..end)?.to_vec();
        let all = end + usize::from(padding);
        self.received.get(end..all)?;
        self.received.drain(..all);
        Some(Record {
            version,
            kind,
            id: u16::from_be_bytes([id1, id0]),
            content,
            padding,
        })
    }

    /// The server closes the connection, having sent nothing else.
    pub(crate) fn expect_close(&mut self, limit: Duration) {
        match self.record_within(limit) {
            Err(NoRecord::Closed(_)) => {
                let rest = &self.received;
                assert!(
                    rest.is_empty(),
                    "the connection ends in half a record: {rest:?}"
                );
            }
            other => panic!("expected the end of the connection within {limit:?}, came: {other:?}"),
        }
    }

    /// The server goes on with this connection: it answers a query.
    pub(crate) fn expect_alive(&mut self) {
        self.send(&record::record(
            record::GET_VALUES,
            0,
            &record::pair(b"FCGI_MPXS_CONNS", b""),
        ));
        let answer = self.record();
        assert_eq!(
            (answer.kind, answer.id),
            (record::GET_VALUES_RESULT, 0),
            "expected an answer to GET_VALUES, came: {answer:?}"
        );
    }
}
