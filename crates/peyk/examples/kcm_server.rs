//! A server of length-prefixed messages with a pool of workers: no hand-off while messages are cheap.
//!
//! `cargo run -p peyk --example kcm_server`

use std::io::{Read, Write};
use std::net::TcpStream;

use peyk::kcm::framer::{LengthField, Spread};
use peyk::kcm::{Config, Mux, ServeOptions, Steer};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let (mux, socket) = Mux::open(Config { steer: Steer::Pull, ..Config::default() })?;
    let framer = LengthField::be(0, 4).plus(4).spread_as(Spread::Any);
    let here = mux.listen("127.0.0.1:0".parse()?, Box::new(framer), false)?.local_addr();

    let options = ServeOptions { threads: 4, ..ServeOptions::default() };
    let workers = mux.serve(&socket, options, |message, replies| {
        replies.reply(&message.bytes.to_ascii_uppercase()); // to the connection it came from
    })?;

    let mut client = TcpStream::connect(here)?;
    client.write_all(b"\0\0\0\x05hello\0\0\0\x05world")?;
    let mut answers = [0; 18];
    client.read_exact(&mut answers)?;
    println!("{here} answers {:?}", String::from_utf8_lossy(&answers));
    print!("{}", peyk::kcm::status::kcm(&[mux.snapshot()]));
    workers.stop();
    Ok(())
}
