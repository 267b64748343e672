//! Steps that run only some layers, for measurements of what a layer takes.

use super::Engine;
use crate::{Error, Result};

impl Engine {
    /// The layers that steps run, in order.
    pub fn selected(&self) -> &[usize] {
        &self.layers
    }

    /// From now on, steps run only these layers, in this order, as if the model had no others. This is for
    /// measurements. Plans of a selection are kept, so going back to a selection costs nothing. The sequence memory of
    /// the other layers does not change.
    ///
    /// # Errors
    /// [`Error::Parameter`] if there is no such layer.
    pub fn select(&mut self, layers: &[usize]) -> Result<()> {
        let have = self.model.layers.len();
        if let Some(none) = layers.iter().find(|layer| **layer >= have) {
            return Err(Error::Parameter {
                name: "layers",
                why: format!("there is no layer {none}; the model has {have}"),
            });
        }
        if layers != self.layers {
            let before = std::mem::replace(&mut self.layers, layers.to_vec());
            let plans = self.others.remove(layers).unwrap_or_default();
            self.others.insert(before, std::mem::replace(&mut self.bodies, plans));
        }
        Ok(())
    }
}
