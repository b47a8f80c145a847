//! Runs the command and gives its output.

use std::{
    path::PathBuf,
    process::{Command, Output},
};

/// The command with arguments.
pub fn peyk(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_peyk"));
    command.args(arguments);
    command
}

/// Runs the command to its end; it must succeed.
pub fn run(arguments: &[&str]) -> Output {
    let output = peyk(arguments).output().expect("the command starts");
    assert!(
        output.status.success(),
        "peyk {arguments:?}: {}\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    output
}

/// A path for a file of a test, in the build directory.
pub fn path(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name)
}
