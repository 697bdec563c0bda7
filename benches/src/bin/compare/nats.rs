//! The ends that speak NATS: its text protocol over a plain connection, with as few system calls as there are batches.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::thread;

use anyhow::{Context as _, bail, ensure};

use crate::server::Server;
use crate::{Load, Meter, Turn};

/// Bytes read at once.
const READ: usize = 64 * 1024;

pub(crate) fn turn(server: &Server, load: Load) -> anyhow::Result<Turn> {
    let mut answerer = Client::dial(&server.back)?;
    answerer.subscribe("SUB shop backends 1\r\n")?;
    let theirs = answerer.stream.try_clone()?;
    let answerer = thread::spawn(move || answer_all(answerer, load));
    let turn = ask(server, load);
    theirs.shutdown(Shutdown::Both)?;
    match answerer.join() {
        Ok(ended) => ended.and(turn).context("the answerer has failed"),
        Err(_) => bail!("the answerer has panicked"),
    }
}

/// As client libraries do: one subscription for all answers, and a subject below it for each request.
fn ask(server: &Server, load: Load) -> anyhow::Result<Turn> {
    let mut client = Client::dial(&server.front)?;
    client.subscribe("SUB _INBOX.7f3a.* 1\r\n")?;
    let content = vec![b'x'; load.size];
    let mut correlation = 0_u64;
    let mut ask = |output: &mut Vec<u8>| {
        correlation += 1;
        write!(
            output,
            "PUB shop _INBOX.7f3a.{correlation} {}\r\n",
            load.size
        )?;
        output.extend_from_slice(&content);
        output.extend_from_slice(b"\r\n");
        io::Result::Ok(())
    };
    for _ in 0..load.under_way {
        ask(&mut client.output)?;
    }
    let mut meter = Meter::new(server, load);
    let mut under_way = load.under_way;
    while 0 < under_way {
        client.flush()?;
        ensure!(client.read()?, "the server has hung up");
        while let Some(message) = client.next()? {
            ensure!(message.size == load.size, "an answer of another size");
            if meter.count()? {
                ask(&mut client.output)?;
            } else {
                under_way -= 1;
            }
        }
    }
    meter.turn()
}

fn answer_all(mut client: Client, load: Load) -> anyhow::Result<()> {
    let content = vec![b'x'; load.size];
    while client.read()? {
        while let Some(message) = client.next()? {
            let reply_to = message.reply_to.context("nobody to answer")?;
            client.output.extend_from_slice(b"PUB ");
            client.output.extend_from_slice(&client.input[reply_to]);
            write!(client.output, " {}\r\n", content.len())?;
            client.output.extend_from_slice(&content);
            client.output.extend_from_slice(b"\r\n");
        }
        client.flush()?;
    }
    Ok(())
}

struct Client {
    stream: TcpStream,
    /// What was read, of which the first `taken` bytes are done with.
    input: Vec<u8>,
    taken: usize,
    output: Vec<u8>,
}

/// One MSG. Its parts are places in the client's input, which stand until it reads again.
struct Delivered {
    reply_to: Option<std::ops::Range<usize>>,
    size: usize,
}

impl Client {
    fn dial(address: &str) -> anyhow::Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        Ok(Self {
            stream,
            input: Vec::new(),
            taken: 0,
            output: b"CONNECT {\"verbose\":false,\"pedantic\":false}\r\n".to_vec(),
        })
    }

    /// Returns when the server has taken it in.
    fn subscribe(&mut self, line: &str) -> anyhow::Result<()> {
        self.output.extend_from_slice(line.as_bytes());
        self.output.extend_from_slice(b"PING\r\n");
        self.flush()?;
        loop {
            ensure!(self.read()?, "the server has hung up");
            while let Some(end) = self.line_end() {
                let is_pong = &self.input[self.taken..end] == b"PONG";
                self.taken = end + 2;
                if is_pong {
                    return Ok(());
                }
            }
        }
    }

    /// Takes in what has come. False: the connection has ended.
    fn read(&mut self) -> io::Result<bool> {
        self.input.drain(..self.taken);
        self.taken = 0;
        let length = self.input.len();
        self.input.resize(length + READ, 0);
        let read = self.stream.read(&mut self.input[length..])?;
        self.input.truncate(length + read);
        Ok(0 < read)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stream.write_all(&self.output)?;
        self.output.clear();
        Ok(())
    }

    /// The next message that is there whole.
    fn next(&mut self) -> anyhow::Result<Option<Delivered>> {
        while let Some(end) = self.line_end() {
            let line = &self.input[self.taken..end];
            if line == b"PING" {
                self.output.extend_from_slice(b"PONG\r\n");
            } else if line.starts_with(b"MSG ") {
                let (delivered, start) = (self.delivered(end)?, end + 2);
                if self.input.len() < start + delivered.size + 2 {
                    return Ok(None);
                }
                self.taken = start + delivered.size + 2;
                return Ok(Some(delivered));
            } else if line.starts_with(b"-ERR") {
                bail!("the server says {}", line.escape_ascii());
            }
            self.taken = end + 2;
        }
        Ok(None)
    }

    /// `MSG subject subscription [reply-to] size`, ended by `end`.
    fn delivered(&self, end: usize) -> anyhow::Result<Delivered> {
        let line = &self.input[self.taken..end];
        let last = line.iter().rposition(|&byte| byte == b' ');
        let last = last.context("MSG without a size")?;
        let size = std::str::from_utf8(&line[last + 1..])?.parse()?;
        let before = &line[..last];
        let words = before.split(|&byte| byte == b' ').count();
        let start = before.iter().rposition(|&byte| byte == b' ').unwrap_or(0) + 1;
        let reply_to = (words == 4).then_some(self.taken + start..self.taken + last);
        Ok(Delivered { reply_to, size })
    }

    /// Where the line ends that comes next, without its CR LF.
    fn line_end(&self) -> Option<usize> {
        let rest = &self.input[self.taken..];
        let end = rest.windows(2).position(|pair| pair == b"\r\n")?;
        Some(self.taken + end)
    }
}
