//! Memory and rings between application, protocol and driver.
