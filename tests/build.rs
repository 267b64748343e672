//! Lets the suites see Chromium's SwiftShader beside the machine's own Vulkan drivers: cargo gives the
//! variables that a build script sets to the tests of the same package. The Vulkan loader adds the files of
//! VK_ADD_DRIVER_FILES to the drivers it finds by itself.
#![forbid(unsafe_code)]

use std::path::Path;

const VARIABLE: &str = "VK_ADD_DRIVER_FILES";
const SWIFTSHADER: &str = "/usr/lib/chromium/vk_swiftshader_icd.json";

fn main() {
    println!("cargo::rerun-if-env-changed={VARIABLE}");
    // Once it is installed it looks older than this run, and cargo would not look again: a file that never exists makes
    // it look every time until then.
    match Path::new(SWIFTSHADER).exists() {
        true => println!("cargo::rerun-if-changed={SWIFTSHADER}"),
        false => println!("cargo::rerun-if-changed=no-such-file"),
    }
    let mut files: Vec<String> = std::env::var(VARIABLE).into_iter().collect();
    if Path::new(SWIFTSHADER).exists() && !files.iter().any(|list| list.contains(SWIFTSHADER)) {
        files.push(SWIFTSHADER.into());
    }
    if !files.is_empty() {
        println!("cargo::rustc-env={VARIABLE}={}", files.join(":"));
    }
}
