"""The demo: a dozen users' photos and sentences, streamed through a whole installation.

media      photos with a sentence each, by kind
cast       who uploads what
run        the installation, the uploads, and what came back
page       all of it as one self-contained page (the paper's Figure 1)

Real photos, real sentences, the real consumers as processes; nothing is prepared in advance.
"""
