"""nec: neural embedding compression for earth observation."""
