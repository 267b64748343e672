#!/usr/bin/env bash
# A WGSL variable that is declared in a loop without a value should be zero at every turn. With Dawn on SwiftShader it is zero
# at the first turn only, and then keeps what the turn before left there. `var sum = 0.0;` is right everywhere. One would
# have guessed that the two mean the same, as the language says.
. "$(dirname "$0")/lib.sh"
webgpu_on_swiftshader
cat >f.mjs <<'E'
import { each } from './webgpu.mjs';
console.log('var sum: f32;   ', ...await each('var sum: f32; sum += x; o[k] = sum;', [1, 1, 1, 1]));
console.log('var sum = 0.0;  ', ...await each('var sum = 0.0; sum += x; o[k] = sum;', [1, 1, 1, 1]));
process.exit(0);
E
run node f.mjs
expect <<'E'
driver: SwiftShader driver 5.0.0
var sum: f32;    1 2 3 4
var sum = 0.0;   1 1 1 1
E
