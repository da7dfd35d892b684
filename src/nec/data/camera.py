"""Sun, haze, lens and exposure: what turns a drawn scene into pixels."""

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from nec.data.terrain import Canvas, Cover, Field, fractal


def shadows(height: Field, pixel_m: float, azimuth: float, elevation: float) -> Field:
    """Share of each pixel (S, S) that the sun does not reach.

    Args:
        height: Height above the terrain, metres.
        pixel_m: Side of a pixel, metres.
        azimuth: Direction of the sun, radians from the picture's right, towards its bottom.
        elevation: Elevation of the sun, radians.
    """
    side = len(height)
    reach = min(int(height.max() / np.tan(elevation) / pixel_m) + 1, side // 4)
    margin = np.pad(height, reach, mode="edge")
    horizon = np.zeros_like(height)
    for step in range(1, reach + 1):
        x = reach + round(step * np.cos(azimuth))
        y = reach + round(step * np.sin(azimuth))
        drop = step * pixel_m * np.tan(elevation)
        np.maximum(horizon, margin[y : y + side, x : x + side] - drop, out=horizon)
    return np.clip(horizon - height, 0, 1)


def photograph(canvas: Canvas) -> NDArray[np.uint8]:
    """Light a canvas, look at it through haze, and expose; (4, S, S)."""
    rng = canvas.rng
    azimuth, elevation = rng.uniform(0, 2 * np.pi), rng.uniform(0.55, 1.15)
    land = canvas.cover != Cover.WATER
    surface = canvas.height + rng.uniform(2, 9) * canvas.relief * land
    slope_y, slope_x = np.gradient(surface, canvas.pixel_m)
    towards = np.cos(azimuth) * slope_x + np.sin(azimuth) * slope_y
    flat = np.sin(elevation)
    direct = np.clip(flat - 0.55 * np.cos(elevation) * np.clip(towards, -1.5, 1.5), 0.1, 1.5) / flat
    shade = shadows(canvas.height, canvas.pixel_m, azimuth, elevation)
    # Skylight is what shadows have: blue, and little in the infrared.
    sky = np.array([0.26, 0.30, 0.38, 0.20], np.float32)[:, None, None]
    light = sky + (1 - sky) * (direct * (1 - shade)).astype(np.float32)
    haze = rng.uniform(0, 0.09) * rng.uniform(0.6, 1, 4).astype(np.float32)
    radiance = canvas.reflectance * light + haze[:, None, None]
    radiance = gaussian_filter(radiance, (0, *[rng.uniform(0.4, 0.65)] * 2), truncate=3.0)
    gamma = np.float32(rng.uniform(0.5, 1.0))
    balance = np.exp(rng.normal(0, 0.06, 4)).astype(np.float32)
    bright = np.percentile(radiance[:3], 98), np.percentile(radiance[3], 98)
    gain = np.array([bright[0]] * 3 + [bright[1]], np.float32) / rng.uniform(0.55, 0.95)
    exposed = np.clip(radiance * (balance / gain)[:, None, None], 0, 1) ** gamma
    noise = np.stack([fractal(rng, canvas.side, 0.0) for _ in exposed])
    exposed += rng.uniform(0.004, 0.015) * noise
    return np.clip(255 * exposed, 0, 255).astype(np.uint8)
