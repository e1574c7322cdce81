"""What the specifications say: tables and layouts of virtio 1.3, Linux's uapi headers and vhost-user.

It must not know QEMU's replies, devices at run time, or anything of ours but the errors.
"""
