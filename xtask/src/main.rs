//! Checks of the repository itself.
//!
//! `cargo run -p xtask -- tidy` fails when the tree breaks a rule of the house that no compiler
//! knows. It reads sources and metadata only; formatting, lints and tests are left to cargo.
#![forbid(unsafe_code)]

mod tidy;

use clap::{Parser, Subcommand};
use std::path::Path;
use std::process::ExitCode;

#[derive(Parser)]
#[command(about = "Checks of the repository itself")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Checks imports, clocks, unsafe code, sizes and the paths named in documents.
    Tidy {
        /// Writes the current excess lengths to xtask/ratchet.txt instead of failing for them.
        #[arg(long)]
        write_ratchet: bool,
    },
}

fn main() -> anyhow::Result<ExitCode> {
    let Command::Tidy { write_ratchet } = Arguments::parse().command;
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize()?;
    let problems = tidy::run(&root, write_ratchet)?;
    for problem in &problems {
        eprintln!("{problem}");
    }
    if problems.is_empty() {
        println!("tidy: all is well");
        return Ok(ExitCode::SUCCESS);
    }
    eprintln!("tidy: {} problems", problems.len());
    Ok(ExitCode::FAILURE)
}
