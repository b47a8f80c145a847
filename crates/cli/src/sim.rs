//! Simulated experiments as the command runs them: what is asked for, running it on the cores there are, and
//! what came of it. The simulation itself is `peyk_sim`; nothing here prints.

pub mod fleet;
pub mod hunt;
pub mod job;
pub mod plan;
pub mod result;
pub mod spec;
