//! The core for JavaScript, as thin as possible. Only the package's TypeScript (`wasm/js/`) calls it. Files, network and
//! storage are handled there.
//!
//! A failure is a JavaScript `Error` with the core's message and its stable `code`. A panic leaves the module unusable, and
//! [`last_panic`] returns its message.
#![forbid(unsafe_code)]

mod bench;
mod device;
mod loading;
mod self_check;
mod session;
mod text;

use std::cell::RefCell;
use std::fmt::Write as _;
use wasm_bindgen::prelude::*;

thread_local! {
    static PANIC: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Stores the message of a panic for [`last_panic`].
#[wasm_bindgen(start)]
pub fn start() {
    std::panic::set_hook(Box::new(|info| PANIC.with_borrow_mut(|message| *message = Some(info.to_string()))));
}

/// The message of the last panic, if there was one.
#[wasm_bindgen]
pub fn last_panic() -> Option<String> {
    PANIC.with_borrow(Clone::clone)
}

/// Panics, for tests of what happens after a panic.
#[wasm_bindgen]
pub fn panic_now() {
    panic!("asked for");
}

/// The package's version.
#[wasm_bindgen]
pub fn version() -> String {
    env!("CARGO_PKG_VERSION").into()
}

/// SHA-256 of bytes that come in pieces, which `crypto.subtle` cannot do.
#[wasm_bindgen]
#[derive(Default)]
pub struct Sha256(sha2::Sha256);

#[wasm_bindgen]
impl Sha256 {
    /// Begins with no bytes.
    #[wasm_bindgen(constructor)]
    pub fn new() -> Sha256 {
        Sha256::default()
    }

    /// Adds the next piece.
    pub fn update(&mut self, bytes: &[u8]) {
        sha2::Digest::update(&mut self.0, bytes);
    }

    /// The digest, in lower-case hexadecimal.
    pub fn hex(self) -> String {
        let digest = sha2::Digest::finalize(self.0);
        digest.iter().fold(String::new(), |mut hex, byte| {
            let _ = write!(hex, "{byte:02x}");
            hex
        })
    }
}

/// The files that a `model.safetensors.index.json` lists, in the order of first use.
#[wasm_bindgen]
pub fn index_files(json: &[u8]) -> Result<Vec<String>, JsValue> {
    nemoflash::checkpoint::index(json).map_err(fail)
}

/// Turns an error of the core into a JavaScript `Error`.
fn fail(error: nemoflash::Error) -> JsValue {
    coded(error.code(), &error.to_string())
}

fn coded(code: &str, message: &str) -> JsValue {
    let thrown = js_sys::Error::new(message);
    let _ = js_sys::Reflect::set(&thrown, &"code".into(), &code.into());
    thrown.into()
}

/// Reads options, which the package writes as JSON.
fn options<T: serde::de::DeserializeOwned>(json: &str) -> Result<T, JsValue> {
    serde_json::from_str(json).map_err(|e| coded("parameter", &format!("the options cannot be used: {e}")))
}
