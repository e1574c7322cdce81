"""What is fetched and built into the user's cache: packages, kernels, module files and initramfs archives. It knows
nothing of running VMs or of pytest."""
