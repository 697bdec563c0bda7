//! Puts an application that speaks HTTP/1.1 behind Scale0.
