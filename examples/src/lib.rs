//! What the examples share: where the broker is, and what is printed.
#![expect(clippy::print_stdout, reason = "examples speak to whoever runs them")]

/// The broker that `scale0 up` starts without a configuration.
pub const BROKER: &str = "tcp://127.0.0.1:5702";

/// How every example is started.
#[derive(Debug, clap::Parser)]
pub struct Arguments {
    /// The broker to serve for.
    #[arg(long, value_name = "ENDPOINT", default_value = BROKER)]
    pub broker: String,
}

/// Says that a broker has accepted the backend: from now on it is sent requests.
pub fn registered(broker: &str) {
    println!("registered with broker {broker}");
}

/// Says something else worth knowing.
pub fn say(what: &str) {
    println!("{what}");
}
