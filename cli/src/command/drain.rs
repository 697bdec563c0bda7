//! `scale0 drain`: let a running process, or one role of it, finish its work and take no more.

use std::time::Duration;

use http::{Method, StatusCode};

use super::admin_client::{ask, refusal};
use crate::args::{DrainArguments, Role};

/// How often `--wait` looks.
const LOOK: Duration = Duration::from_millis(100);

/// Asks for a drain, and with `--wait` waits until it is done.
///
/// # Errors
/// When the process cannot be asked, or refuses.
pub(crate) fn run(arguments: &DrainArguments) -> anyhow::Result<()> {
    let admin = &arguments.admin.admin;
    let mut query = Vec::new();
    if let Some(role) = arguments.role {
        query.push(format!("role={}", role.name()));
    }
    if let Some(timeout) = arguments.timeout {
        query.push(format!("timeout_ms={}", timeout.as_millis()));
    }
    let (status, text) = ask(admin, Method::POST, &format!("/drain?{}", query.join("&")))?;
    if status != StatusCode::ACCEPTED {
        return Err(refusal(admin, status, &text));
    }
    while arguments.wait && !is_done(admin, arguments.role)? {
        #[expect(
            clippy::disallowed_methods,
            reason = "a pause between two looks at another process"
        )]
        std::thread::sleep(LOOK);
    }
    Ok(())
}

/// Whether the process has ended, or the role has nothing left to do.
fn is_done(admin: &str, role: Option<Role>) -> anyhow::Result<bool> {
    let Ok((status, text)) = ask(admin, Method::GET, "/status") else {
        // A process that has drained ends, and its listener with it.
        return Ok(true);
    };
    let shown = serde_json::from_str::<serde_json::Value>(&text).ok();
    let shown = shown.filter(|_| status == StatusCode::OK);
    let status = shown.ok_or_else(|| refusal(admin, status, &text))?;
    let is_zero = |value: &serde_json::Value| value.as_u64().unwrap_or(0) == 0;
    Ok(match role {
        None => false,
        Some(Role::Frontend) => is_zero(&status["frontend"]["connections"]),
        Some(Role::Broker) => is_zero(&status["broker"]["open_requests"]),
        Some(Role::Bridge) => match &status["bridge"] {
            serde_json::Value::Array(several) => {
                several.iter().all(|bridge| is_zero(&bridge["running"]))
            }
            one => is_zero(&one["running"]),
        },
    })
}
