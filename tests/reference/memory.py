"""Bytes and operations for each token of a training step, by formula: nothing is measured.

    python3 tests/reference/memory.py
"""
def stack(D, blocks, V, N=128, P=64, ratio=3, C=64):
    K = 128 if D >= 512 else 64 if D >= 256 else 32
    H = D // K
    G = max(1, H // 4)
    F = int(ratio * D) // 128 * 128
    di = 2 * D
    Hm = di // P
    par, keep, full, flop = 0, 0, 0, 0
    work = 0
    for b in blocks:
        keep += D                                   # residual stream in front of the block
        if b == "d":
            p = 4 * D * D + D * H
            par += p
            a = 3 * D + H + D + D + D * K // C      # raw q|k|v|beta, N, o, a chunk's first state
            flop += 6 * p + H * (3 * 2 + 8 * 2) * K * K     # serial: 3 passes forward, 8 backward
            big = a + 4 * D
        elif b == "m":
            p = D * (2 * di + 2 * N + Hm) + di * D
            par += p
            a = 2 * di + 2 * N + Hm + di + di * N // C      # z|x|B|C|dt, y, a chunk's first state
            flop += 6 * p + di * N * (2 * 2 + 7 * 2)
            big = a + 3 * di
        elif b == "a":
            p = 2 * D * D + 2 * D * G * K
            par += p
            a = D + 2 * G * K + D + H
            flop += 6 * p                            # scores are counted apart
            big = a + 3 * D
        else:
            p = 3 * D * F
            par += p
            a = 2 * F
            flop += 6 * p
            big = a + 2 * F
        keep += a
        work = max(work, big)
    flop += 6 * V * D
    return par + V * D, keep, len(blocks) * D + work, flop

ORDER12 = "d f m f a f m f d f m f".split()
ORDER24 = "d f m f a f m f d f m f a f m f d f m f d f m f".split()
print("width  ops  vocab   parameters  kept/token f32 (f16)   all blocks recomputed   MFLOP/token  state of weights   tokens that fit in 4 GiB (f16 kept; all recomputed)")
for D, blocks, V in ((128, "d f m f a f m f".split(), 4096), (256, ORDER12, 4096), (512, ORDER12, 8192), (768, ORDER24[:20], 32768), (1024, ORDER24, 32768)):
    par, keep, re, flop = stack(D, blocks, V)
    state = par * 18
    print(f"{D:5} {len(blocks):4} {V:6} {par/1e6:9.1f} M  {keep*4/1024:8.1f} KiB ({keep*2/1024:.1f})   {re*4/1024:10.1f} KiB   {flop/1e6:10.1f}   {state/2**20:8.0f} MiB   {(4*2**30)/(keep*2):9.0f}  {(4*2**30)/(re*4):9.0f}")
    for T in (512, 2048):
        att = sum(b == "a" for b in blocks)
        print(f"      T={T}: attention scores add {att*12*D*T/2/1e6:.1f} MFLOP/token; logits of 2,048 rows {2048*V*4/2**20:.0f} MiB f32; 64 x {T} tokens keep {64*T*keep*2/2**30:.1f} GiB (f16), {64*T*re*4/2**30:.1f} GiB all recomputed")
