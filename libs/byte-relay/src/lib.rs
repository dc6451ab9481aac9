//! Moving bytes between sockets.
//!
//! * [`scratch`]: large buffers by the thread, none by the connection
//! * [`ready_set`]: many sockets in one task, looked at only when they are ready
//! * [`last_words`]: a close that does not cut off what was said last
//! * [`leaving`]: the same for many connections of a thread, without a task for each
//! * [`proxy_protocol`]: the PROXY header, read and written
//! * [`descriptors`]: as many sockets as the system allows

pub mod descriptors;
pub mod last_words;
pub mod leaving;
pub mod proxy_protocol;
pub mod ready_set;
pub mod scratch;
