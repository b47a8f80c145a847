//! The command `peyk`.
fn main() {}
