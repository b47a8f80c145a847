//! Homa as a pure state machine: packets, time and randomness in; packets, events and deadlines out.
