"""Soft bodies of tetrahedra: what they are made of, their forces, and their motion forward and back."""
