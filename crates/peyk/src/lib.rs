//! A network stack in user space whose unit is the message.
