//! The command as a user runs it: real processes, real sockets.

mod bench;
mod cluster;
mod common;
mod decode;
mod demo;
mod kcm;
mod serve;
mod sim;
