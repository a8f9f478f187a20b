"""Where a provider should serve: which consecutive layers of which model, so that the weakest layer gains most.

slices      [a, b), and the cuts in force: slices nest or lie apart, so that routes meet end to end
supply      what all holders give each layer, and how many owners have a copy of it
holders     what is known of a provider, and the rules' numbers
plan        one epoch's decisions, in an order that everybody computes alike
listed      a proved holder book as the rule reads it
rule        what one provider does; when it may leave; which model it helps
"""
