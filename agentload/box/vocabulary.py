"""The words that the box's model speaks: common, short, one token each."""

WORDS = (
    "the a and of to in is was for on that with as it by at from be this or are we there their has been more when will "
    "would who so out up them then into time some could these two first other its new only people over after also well "
    "down back just where most know very through good way even because any how our work life year day long make great "
    "between world still own last never before too under state might much while part place right high again small end "
    "number home point hand every system set water group order head fact side name line area level case kind form best "
    "keep light free field air land late real car full far open change cost show word table job market report study "
    "price test file code tool result error search read write step value server load request queue cache answer check "
    "next fix build list find return count data input output task done note run agent turn call view key type rule"
).split()
"""Lower-case words without repetition."""
