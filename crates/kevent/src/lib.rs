//! One completion queue, on io_uring and epoll.
