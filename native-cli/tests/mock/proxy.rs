//! Proxies on 127.0.0.1 that pass everything on and remember where to.

use std::io::{Read, Result, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

/// A running proxy.
#[derive(Debug)]
pub struct Proxy {
    /// `host:port`.
    pub place: String,
    targets: Arc<Mutex<Vec<String>>>,
}

impl Proxy {
    /// One that is asked with `CONNECT host:port`.
    pub fn http() -> Proxy {
        Proxy::new(|stream| {
            let head = until_blank_line(stream)?;
            let target = head.split(' ').nth(1).unwrap_or_default().to_owned();
            stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n")?;
            Ok(target)
        })
    }

    /// One that speaks SOCKS 5 (RFC 1928), with addresses of IPv4 and names.
    pub fn socks() -> Proxy {
        Proxy::new(|stream| {
            let [_, methods] = take(stream)?;
            stream.read_exact(&mut vec![0; usize::from(methods)])?;
            stream.write_all(&[5, 0])?;
            let [_, _, _, kind] = take(stream)?;
            let host = match kind {
                1 => std::net::Ipv4Addr::from(take::<4>(stream)?).to_string(),
                _ => {
                    let [length] = take(stream)?;
                    let mut name = vec![0; usize::from(length)];
                    stream.read_exact(&mut name)?;
                    String::from_utf8_lossy(&name).into_owned()
                }
            };
            let port = u16::from_be_bytes(take(stream)?);
            stream.write_all(&[5, 0, 0, 1, 0, 0, 0, 0, 0, 0])?;
            Ok(format!("{host}:{port}"))
        })
    }

    /// `agree` reads where a connection shall lead, and agrees to it.
    fn new(agree: fn(&mut TcpStream) -> Result<String>) -> Proxy {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let place = listener.local_addr().expect("an address").to_string();
        let targets = Arc::new(Mutex::new(vec![]));
        let seen = Arc::clone(&targets);
        thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                let seen = Arc::clone(&seen);
                thread::spawn(move || {
                    let target = agree(&mut stream)?;
                    seen.lock().expect("no panic").push(target.clone());
                    let mut there = TcpStream::connect(target)?;
                    let (mut back, mut here) = (there.try_clone()?, stream.try_clone()?);
                    thread::spawn(move || std::io::copy(&mut here, &mut there));
                    std::io::copy(&mut back, &mut stream)
                });
            }
        });
        Proxy { place, targets }
    }

    /// Where connections led until now.
    pub fn targets(&self) -> Vec<String> {
        self.targets.lock().expect("no panic").clone()
    }
}

fn take<const N: usize>(stream: &mut impl Read) -> Result<[u8; N]> {
    let mut bytes = [0; N];
    stream.read_exact(&mut bytes)?;
    Ok(bytes)
}

fn until_blank_line(stream: &mut impl Read) -> Result<String> {
    let mut head = vec![];
    while !head.ends_with(b"\r\n\r\n") {
        head.extend(take::<1>(stream)?);
    }
    Ok(String::from_utf8_lossy(&head).into_owned())
}
