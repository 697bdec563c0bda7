//! An HTTP/1.1 client that shows what came over the connection, one piece after the other.

use std::io::{self, ErrorKind};
use std::net::SocketAddr;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

use super::soon;

/// The status and the fields of a response, in the order in which they came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Head {
    /// 200, 404 …
    pub(crate) status: u16,
    /// Names in lower case.
    pub(crate) fields: Vec<(String, String)>,
}

impl Head {
    /// The first field of this name, which is in lower case.
    pub(crate) fn field(&self, name: &str) -> Option<&str> {
        let found = self.fields.iter().find(|(field, _)| field == name);
        found.map(|(_, value)| value.as_str())
    }
}

/// A response that came to its end as it should.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Response {
    /// Its head.
    pub(crate) head: Head,
    /// Its content.
    pub(crate) body: Vec<u8>,
}

impl Response {
    /// Its status.
    pub(crate) fn status(&self) -> u16 {
        self.head.status
    }

    /// The first field of this name, or nothing.
    pub(crate) fn field(&self, name: &str) -> &str {
        self.head.field(name).unwrap_or_default()
    }

    /// Its content as text.
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// A GET on a connection of its own.
pub(crate) async fn get(address: SocketAddr, target: &str) -> Response {
    Client::connect(address).await.get(target).await
}

/// How the end of the content that is being read shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Framing {
    /// After so many more bytes.
    Length(u64),
    /// By an empty chunk; so many bytes of the current one are left.
    Chunks(u64),
    /// By the end of the connection.
    Close,
    /// It has ended.
    Over,
}

/// One connection.
pub(crate) struct Client {
    stream: BufReader<TcpStream>,
    framing: Framing,
    asked_for_head: bool,
}

impl Client {
    /// Opens a connection.
    pub(crate) async fn connect(address: SocketAddr) -> Self {
        let stream = soon(TcpStream::connect(address)).await.unwrap();
        stream.set_nodelay(true).unwrap();
        Self::on(stream)
    }

    /// Takes over a connection that was opened by other means.
    pub(crate) fn on(stream: TcpStream) -> Self {
        Self {
            stream: BufReader::with_capacity(64 * 1024, stream),
            framing: Framing::Over,
            asked_for_head: false,
        }
    }

    /// A GET, and its whole response.
    pub(crate) async fn get(&mut self, target: &str) -> Response {
        self.get_with(target, "").await
    }

    /// A GET with more fields, each line ended by CRLF, and its whole response.
    pub(crate) async fn get_with(&mut self, target: &str, fields: &str) -> Response {
        self.ask("GET", target, fields).await;
        self.response().await
    }

    /// Sends a request without content; the fields end by CRLF each.
    pub(crate) async fn ask(&mut self, method: &str, target: &str, fields: &str) {
        let head = format!("{method} {target} HTTP/1.1\r\nHost: www.example.com\r\n{fields}\r\n");
        self.send(head).await.unwrap();
    }

    /// Sends bytes as they are.
    ///
    /// # Errors
    /// When the connection is over.
    pub(crate) async fn send(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        let bytes = bytes.as_ref();
        self.asked_for_head = bytes.starts_with(b"HEAD ");
        soon(self.stream.get_mut().write_all(bytes)).await
    }

    /// Says that nothing more will be sent.
    pub(crate) async fn finish(&mut self) -> io::Result<()> {
        self.stream.get_mut().shutdown().await
    }

    /// The response: head and content. Interim responses are passed over.
    pub(crate) async fn response(&mut self) -> Response {
        self.try_response().await.expect("a whole response")
    }

    /// The response, if it comes to its end.
    ///
    /// # Errors
    /// When the connection breaks off before.
    pub(crate) async fn try_response(&mut self) -> io::Result<Response> {
        let mut head = self.head().await?;
        while head.status < 200 && head.status != 101 {
            head = self.head().await?;
        }
        let body = self.rest().await?;
        Ok(Response { head, body })
    }

    /// The next head, be it of an interim response.
    ///
    /// # Errors
    /// When the connection breaks off before its end, or it is none.
    pub(crate) async fn head(&mut self) -> io::Result<Head> {
        let first = self.line().await?;
        let status = first
            .strip_prefix("HTTP/1.1 ")
            .and_then(|rest| rest.get(..3)?.parse().ok())
            .ok_or_else(|| wrong(format!("no status line: {first:?}")))?;
        let mut fields = Vec::new();
        loop {
            let line = self.line().await?;
            if line.is_empty() {
                break;
            }
            let (name, value) = line
                .split_once(':')
                .ok_or_else(|| wrong(format!("no field: {line:?}")))?;
            fields.push((name.to_ascii_lowercase(), value.trim().to_owned()));
        }
        let head = Head { status, fields };
        self.framing = self.framing_of(&head)?;
        Ok(head)
    }

    /// The next piece of the content; `None` at its end.
    ///
    /// # Errors
    /// When the connection breaks off before its end.
    pub(crate) async fn some(&mut self) -> io::Result<Option<Vec<u8>>> {
        self.at_most(usize::MAX).await
    }

    /// The next piece of the content, of at most so many bytes; `None` at its end.
    ///
    /// # Errors
    /// When the connection breaks off before its end.
    pub(crate) async fn at_most(&mut self, most: usize) -> io::Result<Option<Vec<u8>>> {
        match self.framing {
            Framing::Over => return Ok(None),
            Framing::Chunks(0) => {
                let line = self.line().await?;
                let size = u64::from_str_radix(line.split(';').next().unwrap_or_default(), 16)
                    .map_err(|_| wrong(format!("no chunk size: {line:?}")))?;
                if size == 0 {
                    while !self.line().await?.is_empty() {}
                    self.framing = Framing::Over;
                    return Ok(None);
                }
                self.framing = Framing::Chunks(size);
            }
            Framing::Chunks(_) | Framing::Length(_) | Framing::Close => {}
        }
        let piece = soon(self.stream.fill_buf()).await?;
        let limit = match self.framing {
            Framing::Length(left) | Framing::Chunks(left) => left,
            Framing::Close | Framing::Over => u64::MAX,
        };
        let limit = most.min(usize::try_from(limit).unwrap_or(usize::MAX));
        let length = piece.len().min(limit);
        let piece = piece[..length].to_vec();
        self.stream.consume(length);
        if piece.is_empty() {
            return match self.framing {
                Framing::Close => {
                    self.framing = Framing::Over;
                    Ok(None)
                }
                _ => Err(ErrorKind::UnexpectedEof.into()),
            };
        }
        let took = length as u64;
        match &mut self.framing {
            Framing::Length(left) => {
                *left -= took;
                if *left == 0 {
                    self.framing = Framing::Over;
                }
            }
            Framing::Chunks(left) => {
                *left -= took;
                if *left == 0 && !self.line().await?.is_empty() {
                    return Err(wrong("a chunk longer than it said".into()));
                }
            }
            Framing::Close | Framing::Over => {}
        }
        Ok(Some(piece))
    }

    /// What is left of the content.
    ///
    /// # Errors
    /// When the connection breaks off before its end.
    pub(crate) async fn rest(&mut self) -> io::Result<Vec<u8>> {
        let mut body = Vec::new();
        while let Some(piece) = self.some().await? {
            body.extend_from_slice(&piece);
        }
        Ok(body)
    }

    /// Exactly so many bytes of the content.
    ///
    /// # Errors
    /// When the content ends or the connection breaks off before.
    pub(crate) async fn exactly(&mut self, length: usize) -> io::Result<Vec<u8>> {
        let mut body = Vec::new();
        while body.len() < length {
            let piece = self.at_most(length - body.len()).await?;
            body.extend_from_slice(&piece.ok_or(ErrorKind::UnexpectedEof)?);
        }
        Ok(body)
    }

    /// Bytes as they come, for a connection that has switched protocols.
    pub(crate) async fn raw(&mut self, length: usize) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; length];
        soon(self.stream.read_exact(&mut bytes)).await?;
        Ok(bytes)
    }

    /// Whatever comes until the other side closes.
    pub(crate) async fn until_closed(&mut self) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        soon(self.stream.read_to_end(&mut bytes)).await?;
        Ok(bytes)
    }

    /// Ends the connection as a crash would: by a reset.
    pub(crate) fn abort(self) {
        self.stream.get_ref().set_zero_linger().unwrap();
    }

    async fn line(&mut self) -> io::Result<String> {
        let mut line = Vec::new();
        soon(self.stream.read_until(b'\n', &mut line)).await?;
        let Some(line) = line.strip_suffix(b"\r\n") else {
            return Err(ErrorKind::UnexpectedEof.into());
        };
        String::from_utf8(line.to_vec()).map_err(|_| wrong("a line that is no UTF-8".into()))
    }

    fn framing_of(&self, head: &Head) -> io::Result<Framing> {
        if self.asked_for_head || matches!(head.status, 100..=199 | 204 | 304) {
            return Ok(Framing::Over);
        }
        if head.field("transfer-encoding").is_some() {
            return Ok(Framing::Chunks(0));
        }
        match head.field("content-length") {
            Some("0") => Ok(Framing::Over),
            Some(length) => match length.parse() {
                Ok(length) => Ok(Framing::Length(length)),
                Err(_) => Err(wrong(format!("Content-Length: {length}"))),
            },
            None => Ok(Framing::Close),
        }
    }
}

fn wrong(what: String) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, what)
}
