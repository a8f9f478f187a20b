"""A devnet: a whole test network on this machine's loopback, for trying things, until it is told to stop.

plan         what it consists of, written down in its folder: engine, parts, ports
slices       where its model is served in slices: who has which, and asks how much
chain        its genesis: stakes, a faucet, funded wallets, short epochs
founding     keys of all parts, then the genesis that funds them
parts        the command line of each part
network      the parts running: started, killed, restarted, stopped
offered      when its workers can be asked
homes        the homes that ask on it at once, with a play wallet
supervisor   the process that holds it all
door         how a command finds, starts and speaks with the supervisor
status       what the nodes themselves say
logs         what they wrote
"""
