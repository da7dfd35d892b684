"""What scenes of several classes have in common: land, water, roads, houses."""

import numpy as np
from numpy.typing import NDArray

from nec.data.spectra import draw_crops
from nec.data.terrain import Canvas, Cells, Cover, Field


def blob(canvas: Canvas, centre: tuple[float, float], radius_m: float, rough: float) -> Field:
    """A closed shape, as the approximate distance inside its border (S, S), metres.

    Args:
        canvas: Canvas that it is for.
        centre: (x, y), metres.
        radius_m: Mean radius.
        rough: How far the border strays from the ellipse, as a share of the radius.
    """
    angle, stretch = canvas.rng.uniform(0, np.pi), canvas.rng.uniform(0.7, 1)
    c, s = np.cos(angle), np.sin(angle)
    x, y = canvas.x - centre[0], canvas.y - centre[1]
    distance = np.hypot((c * x + s * y) * stretch, (c * y - s * x) / stretch)
    bends = canvas.warp_v + 0.2 * canvas.stands
    return (radius_m - distance + rough * radius_m * bends).astype(np.float32)


def winding(canvas: Canvas, bend: float) -> tuple[Field, Field]:
    """Coordinates along and across a curve through the picture, metres.

    Args:
        canvas: Canvas that it is for.
        bend: How far it swings, as a share of half the picture.
    """
    rng = canvas.rng
    u, v = canvas.frame(rng.uniform(0, 2 * np.pi))
    v = v - rng.uniform(-0.35, 0.35) * canvas.radius_m
    slope = np.zeros_like(u)
    for turns in (0.6, 1.3):
        wave = 2 * np.pi * turns / (2 * canvas.radius_m)
        phase = wave * u + rng.uniform(0, 2 * np.pi)
        swing = bend * canvas.radius_m * rng.uniform(0.4, 1) / turns
        v = v - swing * np.sin(phase)
        slope = slope + swing * wave * np.cos(phase)
    return u, v / np.sqrt(1 + slope**2)


def band(canvas: Canvas, distance: Field, start_m: float, stop_m: float) -> Field:
    """Share of each pixel at a distance between two bounds; (S, S)."""
    return canvas.soft(np.minimum(distance - start_m, stop_m - distance))


def whole(cells: Cells, free: Field) -> NDArray[np.bool_]:
    """Which cells are free throughout; (count,)."""
    return cells.mean(free) > 0.97


def fill_water(canvas: Canvas, inside: Field, shore_m: float) -> None:
    """Paint water where `inside` (distance to its border, metres) is positive, and a bare shore."""
    palette, rng = canvas.palette, canvas.rng
    if shore_m > 1:
        canvas.paint(canvas.soft(inside + shore_m), Cover.BARE, palette.sand * 0.9, 0.1)
    streaks = 1 + rng.uniform(0, 0.12) * canvas.warp_u + rng.uniform(0, 0.08) * canvas.mottle
    canvas.paint(canvas.soft(inside), Cover.WATER, palette.water[:, None, None] * streaks, 0.02)


def road(canvas: Canvas, across: Field, half_m: float) -> None:
    """Paint a paved road, or a bare track if it is narrow, around across = 0."""
    share = canvas.soft(half_m - np.abs(across))
    if half_m < 2.5:
        canvas.paint(0.8 * share, Cover.BARE, canvas.palette.soil * 1.2, 0.05)
    else:
        canvas.paint(share, Cover.PAVED, canvas.palette.paving, 0.05)


def traffic(canvas: Canvas, along: Field, across: Field, lane: Field, density: float) -> None:
    """Paint cars on a lane (S, S), as specks that change no cover."""
    rng = canvas.rng
    slots = canvas.cells(along, across, 9, 3.6, 0.2)
    car = (rng.random(slots.count) < density)[slots.index] & (np.abs(slots.u) < 2.2)
    paint = rng.choice([0.05, 0.3, 0.6], slots.count)[slots.index]
    canvas.reflectance += 0.75 * (lane * car) * (paint - canvas.reflectance)


def meadow(canvas: Canvas) -> None:
    """Paint grass, bare in places."""
    rng, palette = canvas.rng, canvas.palette
    everywhere = np.ones_like(canvas.height)
    dry = np.clip(rng.uniform(-0.3, 1.2) + 0.4 * canvas.stands, 0, 1)
    spectrum = palette.grass[:, None, None] * (1 - dry) + palette.soil[:, None, None] * dry
    canvas.paint(everywhere, Cover.GRASS, spectrum, 0.18)
    bare = np.clip(canvas.relief - rng.uniform(0.2, 2.5), 0, 1)
    canvas.paint(bare, Cover.BARE, palette.soil, 0.15)


def woods(canvas: Canvas, closed: Field) -> None:
    """Paint canopy where `closed` (S, S) is near 1: two species, several sizes, dark floor."""
    rng, leaves = canvas.rng, canvas.palette.leaves
    floor = 0.45 * leaves[0] + 0.1 * canvas.palette.soil
    canvas.paint(closed, Cover.TREES, floor, 0.3)
    second = np.clip(0.4 + canvas.warp_v * rng.uniform(0.3, 1.5), 0, 1)
    spacing = rng.uniform(7, 11)
    canvas.plant(closed, spacing, leaves[0])
    canvas.plant(closed * second, 0.8 * spacing, leaves[1])
    canvas.plant(0.7 * closed, 1.15 * spacing, leaves[0] * rng.uniform(0.8, 1.2))


def parcels(canvas: Canvas, length_m: float, width_m: float) -> None:
    """Fields of several crops, with rows, and borders of grass or hedges between them."""
    rng, palette = canvas.rng, canvas.palette
    u, v = canvas.frame(rng.uniform(0, np.pi), rng.uniform(0, 8))
    fields = canvas.cells(u, v, length_m, width_m, rng.uniform(0.2, 0.6))
    n, index = fields.count, fields.index
    crops = draw_crops(rng, palette, n).T[:, index]
    period = rng.uniform(5.5, 10, n)[index]
    turned = (rng.random(n) < 0.4)[index]
    rows = np.sin(2 * np.pi * np.where(turned, fields.u, fields.v) / period)
    tracks = np.where(turned, fields.u, fields.v) % (3.1 * period) < 1.6
    contrast = rng.uniform(0.02, 0.22, n)[index]
    growth = 1 + rng.uniform(0, 0.15) * canvas.stands
    tone = (1 + contrast * (rows - tracks)) * growth
    canvas.paint(np.ones_like(u), Cover.CROP, crops * tone, 0.06)
    margin = canvas.soft(rng.uniform(0.5, 2.5) - fields.edge)
    canvas.paint(margin, Cover.GRASS, palette.grass, 0.15)
    hedges = canvas.soft(2.5 - fields.edge) * np.clip(canvas.warp_u, 0, 1) * rng.uniform(0, 1)
    canvas.plant(hedges, 7, palette.leaves[0])


def countryside(canvas: Canvas) -> None:
    """Paint land of any kind, on which a class draws what it is named for."""
    rng = canvas.rng
    kind = rng.choice(3, p=[0.35, 0.35, 0.3])
    if kind == 0:
        parcels(canvas, rng.uniform(50, 120), rng.uniform(40, 90))
    else:
        meadow(canvas)
    cut = rng.uniform(-0.2, 1.6) if kind == 2 else rng.uniform(1, 2.5)
    if kind:
        woods(canvas, np.clip(2.5 * (canvas.stands - cut), 0, 1))
    extras(canvas, track=0.4, trees=0.5, houses=0.2, pond=0.1)


def extras(
    canvas: Canvas,
    track: float = 0.0,
    trees: float = 0.0,
    houses: float = 0.0,
    pond: float = 0.0,
) -> None:
    """Add what may lie anywhere, each by its probability: a track, trees, a farm, a pond."""
    rng, palette = canvas.rng, canvas.palette
    if rng.random() < track:
        road(canvas, winding(canvas, rng.uniform(0, 0.25))[1], rng.uniform(1.3, 3))
    open_land = np.isin(canvas.cover, (Cover.BARE, Cover.GRASS, Cover.CROP)).astype(np.float32)
    if rng.random() < trees:
        scattered = np.clip(0.15 + 0.3 * canvas.warp_v, 0, 1) * rng.uniform(0.2, 1)
        canvas.plant(scattered * open_land, 8, palette.leaves[1])
    if rng.random() < pond:
        fill_water(canvas, blob(canvas, canvas.point(0.9), rng.uniform(9, 18), 0.2), 2)
    if rng.random() < houses:
        u, v = canvas.frame(rng.uniform(0, np.pi))
        x, y = canvas.point(0.8)
        farm = np.hypot(canvas.x - x, canvas.y - y) < 32
        lots = canvas.cells(u, v, 24, 20, 0.2)
        present = whole(lots, open_land * farm) & (rng.random(lots.count) < 0.6)
        canvas.build(lots, present, (4.5, 9), (3, 6), palette.roofs, gabled=True)


def houses(canvas: Canvas, plots: Cells, pitch_m: float) -> None:
    """Fill plots between streets with houses and gardens."""
    lots = plots.divided(pitch_m, 1.7 * pitch_m)
    canvas.plant(canvas.soft(plots.edge - 2) * canvas.rng.uniform(0.05, 0.5), 6.5, leaves(canvas))
    present = canvas.rng.random(lots.count) < 0.93
    canvas.build(lots.inset(0.5), present, (4, 7.5), (3, 7), canvas.palette.roofs, gabled=True)


def slabs(canvas: Canvas, plots: Cells, pitch_m: float) -> None:
    """Fill plots between streets with tall flat houses on lawns."""
    lots = plots.divided(2.2 * pitch_m, 1.6 * pitch_m)
    canvas.plant(canvas.soft(plots.edge - 2) * canvas.rng.uniform(0.05, 0.5), 7, leaves(canvas))
    present = canvas.rng.random(lots.count) < 0.9
    canvas.build(lots.inset(2), present, (6, 13), (9, 22), canvas.palette.roofs, gabled=False)


def courts(canvas: Canvas, plots: Cells, pitch_m: float) -> None:
    """Line plots with closed fronts around courts."""
    rng, palette = canvas.rng, canvas.palette
    deep, parts = rng.uniform(9, 13), plots.divided(pitch_m, pitch_m)
    n, index = parts.count, parts.index
    canvas.plant(canvas.soft(plots.edge - deep - 2) * rng.uniform(0, 0.5), 6, leaves(canvas))
    ridge = np.minimum(plots.edge, deep - plots.edge)
    roofs = palette.roofs[rng.integers(len(palette.roofs), size=n)] * rng.uniform(0.75, 1.2, (n, 1))
    eaves = rng.uniform(8, 16, n)[index]
    canvas.paint(canvas.soft(ridge), Cover.BUILDING, roofs.T[:, index], 0.05, eaves + 0.7 * ridge)


def leaves(canvas: Canvas) -> NDArray[np.float64]:
    """One of the two species of trees; (4,)."""
    return canvas.palette.leaves[canvas.rng.integers(2)]


def roof_details(canvas: Canvas, lots: Cells) -> None:
    """Ribs of sheet metal and skylights on large flat roofs."""
    rng = canvas.rng
    on_roof = canvas.cover == Cover.BUILDING
    period = rng.uniform(6, 14, lots.count)[lots.index]
    ribs = 0.12 * np.sign(np.sin(2 * np.pi * lots.u / period))
    units = canvas.cells(lots.u, lots.v, 11, 9, 0.2)
    size = np.maximum(np.abs(units.u), np.abs(units.v))
    lit = (rng.random(units.count) < rng.uniform(0, 0.35))[units.index] & (size < 1.6)
    canvas.reflectance *= 1 + on_roof * (ribs + rng.uniform(-0.4, 0.6) * lit)


def tanks(canvas: Canvas, u: Field, v: Field, free: Field) -> None:
    """Round tanks in groups where there is room."""
    rng = canvas.rng
    sites = canvas.cells(u, v, 26, 26, 0.05)
    present = whole(sites, free) & (rng.random(sites.count) < 0.8)
    radius = rng.uniform(7, 11)
    inside = np.where(present[sites.index], radius - np.hypot(sites.u, sites.v), -9)
    canvas.paint(canvas.soft(inside), Cover.BUILDING, canvas.palette.roofs[0] * 1.3, 0.03, 9.0)


def junction(canvas: Canvas, along: Field, across: Field, half_m: float) -> None:
    """A bridge over a highway, and loops that lead to it.

    Args:
        canvas: Canvas to paint on.
        along: (S, S), metres along the highway.
        across: (S, S), metres from its middle.
        half_m: Half of the highway's width.
    """
    rng = canvas.rng
    place, lane = rng.uniform(-0.5, 0.5) * canvas.radius_m, rng.uniform(2.5, 3.5)
    bridge = along - place + rng.uniform(-0.4, 0.4) * across
    loop = rng.uniform(18, 34)
    corners = ((1, 1), (1, -1), (-1, 1), (-1, -1))
    for side, way in rng.permutation(corners)[: rng.integers(0, 5)]:
        centre_u, centre_v = place + way * (loop + lane), side * (half_m + loop)
        ring = np.abs(np.hypot(along - centre_u, across - centre_v) - loop)
        canvas.paint(canvas.soft(lane - ring), Cover.PAVED, canvas.palette.paving, 0.04)
        slip = np.abs(across - side * (half_m + 0.012 * (along - place) ** 2 / loop))
        ramp = canvas.soft(lane - slip) * (way * (along - place) > 0)
        canvas.paint(ramp, Cover.PAVED, canvas.palette.paving, 0.04)
    width = rng.uniform(4, 7)
    deck = width - np.abs(bridge)
    canvas.paint(canvas.soft(deck), Cover.PAVED, canvas.palette.paving * 1.15, 0.04)
    near = np.clip(7 - 0.12 * np.clip(np.abs(across) - half_m, 0, None), 0, None)
    canvas.height = np.where(deck > 0, near, canvas.height)
