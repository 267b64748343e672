//! Reads and writes safetensors files for tests, with the `safetensors` crate.

use safetensors::tensor::{TensorView, serialize};
use safetensors::{Dtype, SafeTensors};
use std::collections::BTreeMap;

/// One tensor: type, shape, bytes.
pub type Tensor = (Dtype, Vec<usize>, Vec<u8>);
/// The tensors of a file by name.
pub type Tensors = BTreeMap<String, Tensor>;

/// Reads the tensors of a file.
///
/// # Panics
/// If it is not a safetensors file.
pub fn tensors(bytes: &[u8]) -> Tensors {
    let file = SafeTensors::deserialize(bytes).expect("safetensors");
    file.iter().map(|(name, t)| (name.to_string(), (t.dtype(), t.shape().to_vec(), t.data().to_vec()))).collect()
}

/// Makes a file of these tensors.
///
/// # Panics
/// If lengths and shapes do not match.
pub fn file(tensors: &Tensors) -> Vec<u8> {
    let views = tensors.iter().map(|(name, (dtype, shape, bytes))| {
        (name.as_str(), TensorView::new(*dtype, shape.clone(), bytes).expect("view"))
    });
    serialize(views, None).expect("file")
}
