//! The line in the footer of a client: reads the client's JSON, asks the host, prints one line.
//!
//! The client kills the command after 300 ms and falls back to its own line on any failure (measured on Kimi Code
//! 2.1.0), so this takes no configuration, one connection and a short patience. The user's own status command, if
//! there was one, runs beside and its line comes first.

use std::io::Read;
use std::process::Stdio;
use std::time::Duration;

use tokio::io::AsyncWriteExt;

use crate::cli::block_on;
use crate::cli::failure::Failure;
use crate::cli::failure::Kind;
use crate::cli::failure::Outcome;
use crate::cli::output::Output;
use crate::config::Environment;
use crate::control::status_line;
use crate::kimi;

/// The host answers from memory; what takes longer is not worth the footer.
const PATIENCE: Duration = Duration::from_millis(120);
/// What the user's own command may take of the client's 300 ms.
const OWN_PATIENCE: Duration = Duration::from_millis(220);

pub(crate) fn run(env: &Environment, output: Output) -> Outcome {
    let mut input = Vec::new();
    std::io::stdin()
        .lock()
        .take(1 << 16)
        .read_to_end(&mut input)?;
    block_on(async {
        let (own, ours) = tokio::join!(own_line(env, &input), our_line(env));
        let line: Vec<String> = own.into_iter().chain(ours).collect();
        if line.is_empty() {
            return Err(Failure::quiet(Kind::NotRunning));
        }
        Ok(output.line(line.join("  "))?)
    })
}

async fn our_line(env: &Environment) -> Option<String> {
    let port = env.get("KIMIQ_PORT")?.parse().ok()?;
    status_line(port, env.get("KIMIQ_KEY")?, PATIENCE)
        .await
        .ok()
}

async fn own_line(env: &Environment, input: &[u8]) -> Option<String> {
    let home = env.get("KIMI_CODE_HOME")?;
    let command = kimi::user_status_command(std::path::Path::new(home)).ok()??;
    let mut child = tokio::process::Command::new("sh")
        .args(["-c", &command])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .ok()?;
    if let Some(mut stdin) = child.stdin.take() {
        // A command that does not read its input is no failure.
        stdin.write_all(input).await.ok();
    }
    let done = tokio::time::timeout(OWN_PATIENCE, child.wait_with_output())
        .await
        .ok()?
        .ok()?;
    if !done.status.success() {
        return None;
    }
    let text = String::from_utf8_lossy(&done.stdout);
    text.lines()
        .next()
        .map(ToOwned::to_owned)
        .filter(|line| !line.is_empty())
}
