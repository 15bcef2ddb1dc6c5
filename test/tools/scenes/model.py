"""Qwen2-VL in plain PyTorch, shaped for training: many questions share one picture's rows.

Weights have the hub's names, so that `state_dict()` is nearly what is exported;
only the patch embedding differs, see `hub_weights`.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn


@dataclass(frozen=True)
class Shape:
    """Sizes of the model; the defaults are the committed one's."""

    vocab: int = 2000
    hidden: int = 168
    layers: int = 5
    heads: int = 6
    kv_heads: int = 3
    mlp: int = 392
    rope_theta: float = 20.0  # small: positions are few, and every axis needs quick angles
    sections: tuple = (4, 5, 5)
    vision_width: int = 120
    vision_layers: int = 6
    vision_heads: int = 5
    vision_mlp: int = 4
    patch: int = 8
    merge: int = 2
    most_rows: int = 80  # merged rows of a picture, at most

    @property
    def head(self):
        return self.hidden // self.heads


def rotate(x, cos, sin):
    """Rotary position: pairs element j with j + half."""
    a, b = x.float().chunk(2, dim=-1)
    return torch.cat((a * cos - b * sin, b * cos + a * sin), dim=-1)


def attend(q, k, v, mask):
    """Attention of [batch, heads, length, head]; heads are padded to what kernels like."""
    head = q.shape[-1]
    pad = -head % 8
    q, k, v = (F.pad(x, (0, pad)) for x in (q, k, v))
    out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=head ** -0.5)
    return out[..., :head].transpose(1, 2).flatten(2)


class VisionAttention(nn.Module):
    """Full attention among the patches of a picture."""

    def __init__(self, width, heads):
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x, cos, sin, mask):
        q, k, v = self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        q, k = rotate(q, cos, sin).to(v.dtype), rotate(k, cos, sin).to(v.dtype)
        return self.proj(attend(q, k, v, mask))


class VisionMlp(nn.Module):
    """Two layers with quick GELU."""

    def __init__(self, width, inner):
        super().__init__()
        self.fc1 = nn.Linear(width, inner)
        self.fc2 = nn.Linear(inner, width)

    def forward(self, x):
        x = self.fc1(x)
        return self.fc2(x * torch.sigmoid(1.702 * x))


class VisionBlock(nn.Module):
    """LayerNorm before attention and before the MLP."""

    def __init__(self, shape):
        super().__init__()
        width = shape.vision_width
        self.norm1 = nn.LayerNorm(width, eps=1e-6)
        self.norm2 = nn.LayerNorm(width, eps=1e-6)
        self.attn = VisionAttention(width, shape.vision_heads)
        self.mlp = VisionMlp(width, shape.vision_mlp * width)

    def forward(self, x, cos, sin, mask):
        x = x + self.attn(self.norm1(x), cos, sin, mask)
        return x + self.mlp(self.norm2(x))


class Merger(nn.Module):
    """Four patches into one row of the decoder's width."""

    def __init__(self, shape):
        super().__init__()
        inner = shape.vision_width * shape.merge ** 2
        self.ln_q = nn.LayerNorm(shape.vision_width, eps=1e-6)
        self.mlp = nn.Sequential(nn.Linear(inner, inner), nn.GELU(),
                                 nn.Linear(inner, shape.hidden))

    def forward(self, x):
        return self.mlp(self.ln_q(x).unflatten(1, (-1, 4)).flatten(2))


class Vision(nn.Module):
    """The tower. Patches are [batch, n, 3 * patch * patch], one frame; `where` their (h, w)."""

    def __init__(self, shape):
        super().__init__()
        self.head = shape.vision_width // shape.vision_heads
        self.patch_embed = nn.Linear(3 * shape.patch ** 2, shape.vision_width, bias=False)
        self.blocks = nn.ModuleList(VisionBlock(shape) for _ in range(shape.vision_layers))
        self.merger = Merger(shape)

    def angles(self, where):
        """Half the head's angles: the first half of those from h, the rest from w."""
        half = self.head // 2
        step = torch.arange(0, half, 2, dtype=torch.float32, device=where.device) / half
        return (where.float()[..., None] * 10000.0 ** -step).flatten(2)[:, None]

    def forward(self, patches, where, n_patches):
        """Gives rows for the decoder, and the patches' features before the merger."""
        there = torch.arange(patches.shape[1], device=patches.device)[None] < n_patches[:, None]
        mask = there[:, None, None, :]
        angles = self.angles(where)
        cos, sin = angles.cos(), angles.sin()
        x = self.patch_embed(patches)
        for block in self.blocks:
            x = block(x, cos, sin, mask)
        return self.merger(x), x


class RmsNorm(nn.Module):
    """In float32."""

    def __init__(self, width):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x):
        x = x.float()
        return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + 1e-6) * self.weight


class TextAttention(nn.Module):
    """Grouped queries, biases on q, k and v."""

    def __init__(self, shape):
        super().__init__()
        self.heads, self.kv_heads = shape.heads, shape.kv_heads
        self.q_proj = nn.Linear(shape.hidden, shape.heads * shape.head)
        self.k_proj = nn.Linear(shape.hidden, shape.kv_heads * shape.head)
        self.v_proj = nn.Linear(shape.hidden, shape.kv_heads * shape.head)
        self.o_proj = nn.Linear(shape.heads * shape.head, shape.hidden, bias=False)

    def forward(self, x, cos, sin, mask):
        q = self.q_proj(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)
        k = self.k_proj(x).unflatten(-1, (self.kv_heads, -1)).transpose(1, 2)
        v = self.v_proj(x).unflatten(-1, (self.kv_heads, -1)).transpose(1, 2)
        q, k = rotate(q, cos, sin).to(v.dtype), rotate(k, cos, sin).to(v.dtype)
        k, v = (t.repeat_interleave(self.heads // self.kv_heads, 1) for t in (k, v))
        return self.o_proj(attend(q, k, v, mask))


class TextMlp(nn.Module):
    """SwiGLU."""

    def __init__(self, shape):
        super().__init__()
        self.gate_proj = nn.Linear(shape.hidden, shape.mlp, bias=False)
        self.up_proj = nn.Linear(shape.hidden, shape.mlp, bias=False)
        self.down_proj = nn.Linear(shape.mlp, shape.hidden, bias=False)

    def forward(self, x):
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


class TextLayer(nn.Module):
    """RMSNorm before attention and before the MLP."""

    def __init__(self, shape):
        super().__init__()
        self.input_layernorm = RmsNorm(shape.hidden)
        self.post_attention_layernorm = RmsNorm(shape.hidden)
        self.self_attn = TextAttention(shape)
        self.mlp = TextMlp(shape)

    def forward(self, x, cos, sin, mask):
        x = x + self.self_attn(self.input_layernorm(x), cos, sin, mask)
        return x + self.mlp(self.post_attention_layernorm(x))


class Text(nn.Module):
    """The decoder. Positions are [batch, 3, length]; `mask` is [batch, 1, length, length]."""

    def __init__(self, shape):
        super().__init__()
        self.embed_tokens = nn.Embedding(shape.vocab, shape.hidden)
        self.layers = nn.ModuleList(TextLayer(shape) for _ in range(shape.layers))
        self.norm = RmsNorm(shape.hidden)
        half = shape.head // 2
        step = torch.arange(half, dtype=torch.float32) / half
        self.register_buffer("frequency", shape.rope_theta ** -step, persistent=False)
        axis = [a for a, n in enumerate(shape.sections) for _ in range(n)]
        self.register_buffer("axis", torch.tensor(axis), persistent=False)

    def forward(self, x, positions, mask):
        angles = positions.float()[:, self.axis].transpose(1, 2) * self.frequency
        cos, sin = angles.cos()[:, None], angles.sin()[:, None]
        for layer in self.layers:
            x = layer(x, cos, sin, mask)
        return self.norm(x)


class Model(nn.Module):
    """Tower and decoder, and heads that only training uses (`helper`)."""

    def __init__(self, shape):
        super().__init__()
        self.shape = shape
        self.visual = Vision(shape)
        self.model = Text(shape)
        self.reset(shape)

    def reset(self, shape):
        """Small normal weights, smaller where a block adds to the stream."""
        for name, weight in self.named_parameters():
            if weight.dim() < 2:
                continue
            depth = 2 * (shape.layers if name.startswith("model.") else shape.vision_layers)
            out = any(end in name for end in ("attn.proj.", "fc2", "o_proj", "down_proj"))
            scale = 1 / math.sqrt(weight.shape[1])
            nn.init.normal_(weight, std=scale / math.sqrt(depth) if out else scale)
        nn.init.normal_(self.model.embed_tokens.weight, std=0.05)

    def decode(self, rows, ids, row_of, segments, positions, chosen):
        """Logits at the positions `chosen`, [batch, n].

        `rows` are the tower's, [batch, n_rows, hidden]; `row_of` says which stands at
        each position, -1 for a token. Segment 0 is shared; a token sees segment 0 and
        its own, -1 is padding.
        """
        x = self.model.embed_tokens(ids)
        index = row_of.clamp(min=0)[..., None].expand(-1, -1, rows.shape[-1])
        x = torch.where(row_of[..., None] >= 0, rows.gather(1, index).to(x.dtype), x)
        length = ids.shape[1]
        causal = torch.ones(length, length, dtype=torch.bool, device=ids.device).tril()
        seen = (segments[:, None, :] == 0) | (segments[:, None, :] == segments[:, :, None])
        x = self.model(x, positions, (seen & causal)[:, None])
        x = x.gather(1, chosen[..., None].expand(-1, -1, x.shape[-1]))
        return F.linear(x, self.model.embed_tokens.weight)


def hub_weights(model):
    """Name to tensor as the hub's checkpoints have them.

    Training sees a still picture as one frame; the format wants two, so each gets
    half of the weight, which is exact.
    """
    shape, weights = model.shape, {}
    for name, weight in model.state_dict().items():
        if name == "visual.patch_embed.weight":
            name = "visual.patch_embed.proj.weight"
            weight = weight.view(-1, 3, 1, shape.patch, shape.patch)
            weight = torch.cat((weight / 2, weight / 2), dim=2)
        weights[name] = weight.contiguous()
    return weights
