//! What happens to a broker in a simulated site, as a script: where the fuzzer begins.

use std::time::Duration;

use scale0_wire::Message;

/// A script that is being written.
#[derive(Debug)]
pub(crate) struct Trace {
    script: Vec<u8>,
    /// The time of what was written last.
    at: Duration,
}

impl Trace {
    /// A broker with this secret begins.
    pub(crate) fn new(secret: u64, now: Duration) -> Self {
        let mut script = vec![0];
        script.extend(secret.to_le_bytes());
        Self { script, at: now }
    }

    #[cfg(test)]
    pub(crate) fn script(&self) -> &[u8] {
        &self.script
    }

    /// A message of a peer has come.
    pub(crate) fn said(&mut self, now: Duration, peer: usize, message: &Message) {
        self.pass(now);
        let mut frame = Vec::new();
        let content = message.encode(&mut frame).expect("it was said");
        let content = content.unwrap_or_default();
        let lengths = [frame.len(), content.len()].map(u16::try_from);
        let [Ok(first), Ok(second)] = lengths else {
            return;
        };
        self.deed(2, peer);
        self.script.extend(first.to_le_bytes());
        self.script.extend(second.to_le_bytes());
        self.script.extend(frame);
        self.script.extend(content);
    }

    /// The connection of a peer is gone.
    pub(crate) fn lost(&mut self, now: Duration, peer: usize) {
        self.pass(now);
        self.deed(3, peer);
    }

    fn deed(&mut self, what: u8, peer: usize) {
        self.script.push(what);
        self.script.push(u8::try_from(peer).expect("there are few"));
    }

    fn pass(&mut self, now: Duration) {
        let passed = now.as_millis().saturating_sub(self.at.as_millis());
        if let Ok(passed @ 1..) = u16::try_from(passed) {
            self.at = now;
            self.deed(0, 0);
            self.script.extend(passed.to_le_bytes());
        }
    }
}
