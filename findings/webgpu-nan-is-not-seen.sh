#!/usr/bin/env bash
# `x != x`, the usual test for NaN, is false for a NaN in WGSL with Dawn on SwiftShader, and max(x, 0) turns it into 0: a
# ReLU makes broken numbers look sound. The language lets a compiler assume that there are none. The bits tell it.
. "$(dirname "$0")/lib.sh"
webgpu_on_swiftshader
cat >f.mjs <<'E'
import { each } from './webgpu.mjs';
const nan = [NaN];
console.log('x arrives as        ', ...await each('o[k] = x;', nan));
console.log('x != x              ', ...await each('o[k] = select(0.0, 1.0, x != x);', nan));
console.log('max(x, 0)           ', ...await each('o[k] = max(x, 0.0);', nan));
console.log('exponent and mantissa', ...await each('o[k] = select(0.0, 1.0, (bitcast<u32>(x) & 0x7fffffffu) > 0x7f800000u);', nan));
process.exit(0);
E
run node f.mjs
expect <<'E'
driver: SwiftShader driver 5.0.0
x arrives as         NaN
x != x               0
max(x, 0)            0
exponent and mantissa 1
E
